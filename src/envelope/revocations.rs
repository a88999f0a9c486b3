//! How a method tells of revoked credentials: which field of its chunks says whose, and which field of its request says
//! where to go on. Names become field numbers once.

use crate::transcode::table::{Cardinality, Kind};
use crate::transcode::wire::put_number;
use crate::transcode::{FieldPath, MessageId, Tables};

use super::credential::{Form, ReplyField, reply_field};

/// A watch of revoked credentials, compiled.
#[derive(Debug)]
pub struct RevocationPlan {
    hash: ReplyField,
    after: Option<u32>,
}

impl RevocationPlan {
    /// Resolves the fields: `token_hash` of the chunks, `after` of the request. Fails with each one that is wrong: the
    /// key of the declaration, and what is wrong.
    pub fn compile(
        tables: &Tables,
        request: MessageId,
        chunk: MessageId,
        token_hash: &str,
        after: Option<&str>,
    ) -> Result<RevocationPlan, Vec<(&'static str, String)>> {
        let is_text = |form: &Form| matches!(form, Form::Single(Kind::String));
        let hash = reply_field(tables, chunk, token_hash, is_text, "a text field");
        let after = after.map(|name| after_field(tables, request, name)).transpose();
        match (hash, after) {
            (Ok(hash), Ok(after)) => Ok(RevocationPlan { hash, after }),
            (hash, after) => {
                let wrong = [hash.err().map(|text| ("token_hash", text)), after.err().map(|text| ("after", text))];
                Err(wrong.into_iter().flatten().collect())
            }
        }
    }

    /// The request that goes on behind the chunk with that id; 0 is from the start.
    pub fn request(&self, after: u64) -> Vec<u8> {
        let mut payload = Vec::new();
        if let Some(number) = self.after.filter(|_| after > 0) {
            put_number(number, after, &mut payload);
        }
        payload
    }

    /// SHA-256 of the token that a chunk tells of; `None` where it says none.
    pub fn read(&self, chunk: &[u8]) -> Option<[u8; 32]> {
        let text = self.hash.read(chunk);
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return None;
        }
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |digit: u8| char::from(digit).to_digit(16);
            *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
        }
        Some(hash)
    }
}

fn after_field(tables: &Tables, request: MessageId, name: &str) -> Result<u32, String> {
    let path = FieldPath::resolve(tables, request, name).map_err(|error| error.to_string())?;
    let spec = &path.field(tables).spec;
    let is_number = spec.cardinality == Cardinality::Single && matches!(spec.kind, Kind::Uint64 | Kind::Int64);
    if is_number && path.steps().len() == 1 {
        Ok(spec.number)
    } else {
        Err(format!("`{name}` is no 64-bit number of the request itself"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{SourceFile, load};
    use crate::transcode::wire::put_bytes;

    const PROTO: &str = r#"syntax = "proto3";
        package t.v1;
        message Watch { uint64 after = 1; string from = 2; }
        message Item { string token_hash = 5; uint64 revision = 6; }
    "#;

    fn plan(token_hash: &str, after: Option<&str>) -> Result<RevocationPlan, Vec<(&'static str, String)>> {
        let file = SourceFile { name: "t.proto".to_owned(), bytes: PROTO.as_bytes().to_vec() };
        let tables = load(&[file]).unwrap().tables;
        let [request, chunk] = ["t.v1.Watch", "t.v1.Item"].map(|name| tables.message_id(name).unwrap());
        RevocationPlan::compile(&tables, request, chunk, token_hash, after)
    }

    #[test]
    fn a_chunk_tells_of_a_token_by_its_hash_in_either_case() {
        let plan = plan("token_hash", Some("after")).unwrap();
        let item = |text: &str| {
            let mut chunk = Vec::new();
            put_bytes(5, text.as_bytes(), &mut chunk);
            chunk
        };
        let mut expected = [0xab; 32];
        expected[31] = 0x0f;
        assert_eq!(plan.read(&item(&("ab".repeat(31) + "0F"))), Some(expected));
        for wrong in [String::new(), "ab".repeat(31), "ab".repeat(33), "xy".repeat(32), "é".repeat(32)] {
            assert_eq!(plan.read(&item(&wrong)), None, "{wrong}");
        }
        assert_eq!((plan.request(0), plan.request(300)), (vec![], vec![0x08, 0xac, 0x02]));
    }

    #[test]
    fn fields_of_the_wrong_kind_are_told_all_at_once() {
        let wrong = plan("revision", Some("from")).unwrap_err();
        let expected = [
            ("token_hash", "`revision`: expected a text field".to_owned()),
            ("after", "`from` is no 64-bit number of the request itself".to_owned()),
        ];
        assert_eq!(wrong, expected);
        assert!(plan("token_hash", None).unwrap().request(7).is_empty());
    }
}
