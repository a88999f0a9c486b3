//! A room's growth: nothing is lost where the room that was asked for does not suffice.

use super::Room;

/// Appends one piece of each form, `len` bytes of it.
fn put_all(room: &mut Room, len: usize) {
    room.byte(b'<');
    room.short(&[b's'; 16], len.min(16));
    room.block(&[b'b'; 32], len.min(32));
    room.quoted(&[b'q'; 16], len.min(16));
    room.text(&vec![b't'; len]);
    room.byte(b'>');
}

#[test]
fn a_room_grows_and_keeps_all_or_nothing() {
    for (size, len) in (0..120).flat_map(|size| [0, 1, 2, 3, 4, 7, 8, 9, 16, 17, 32, 33, 100].map(|len| (size, len))) {
        let expected = format!(
            "before<{}{}\"{}\"{}>",
            "s".repeat(len.min(16)),
            "b".repeat(len.min(32)),
            "q".repeat(len.min(16)),
            "t".repeat(len)
        );
        let mut text = b"before".to_vec();
        let mut room = Room::new(&mut text, size);
        put_all(&mut room, len);
        room.keep();
        assert_eq!(String::from_utf8_lossy(&text), expected, "room for {size}");
        text.truncate(6);
        text.shrink_to_fit();
        let mut room = Room::new(&mut text, size);
        put_all(&mut room, len);
        room.forget();
        assert_eq!(text, b"before");
    }
}
