use serde::{Deserialize, Serialize};
use tidegate::fault::{Code, Fault};
use tidegate::snapshot::Snapshot;
use tidegate::store::Store;
use tidegate::worker::records::{Change, Current, Document};
use tidegate::worker::{Context, Parting, Rule, Service, declared};

#[derive(Clone, Serialize, Deserialize)]
pub struct Book {
    book_id: String,
    title: String,
    reader: String,
    times_lent: u64,
    version: u64,
}

#[derive(Serialize, Deserialize)]
pub struct LendBook {
    book_id: String,
    reader: String,
}

#[derive(Serialize, Deserialize)]
pub struct RemoveBook {
    book_id: String,
}

/// A book goes to one reader at a time.
pub fn lend(_: Context, request: LendBook) -> Result<impl Rule<Book, ()>, Fault> {
    if request.reader.is_empty() {
        return Err(Fault::client(Code::InvalidArgument, "reader is required").detail("field", "reader"));
    }
    Ok(move |current: &Current<Book>| match current.value.clone() {
        Some(book) if book.reader.is_empty() => {
            let (reader, times_lent) = (request.reader.clone(), book.times_lent + 1);
            Ok(Change::put(Book { reader, times_lent, ..book }, ()))
        }
        _ => {
            let text = format!("{} is out", request.book_id);
            Err(Fault::client(Code::FailedPrecondition, text).detail("reason", "out").into())
        }
    })
}

/// A book goes while it is in.
pub fn remove(_: Context, _: RemoveBook) -> Result<impl Parting<Book>, Fault> {
    Ok(|book: Document<&Book>| match book.value.reader.as_str() {
        "" => Ok(Vec::new()),
        reader => {
            let text = format!("{reader} has it");
            Err(Fault::client(Code::FailedPrecondition, text).detail("reason", "out"))
        }
    })
}

pub async fn service(store: &Store, snapshot: &Snapshot) -> Result<Service, Fault> {
    let service = declared(store, snapshot, "library.v1.LibraryService").await?;
    Ok(service
        .hook_put("library.v1.LibraryService/LendBook", lend)
        .hook_delete("library.v1.LibraryService/RemoveBook", remove))
}
