//! Lists in pages: a page token is the key of the last row of the page before.

use serde::{Deserialize, Serialize};

use super::checks::out_of_range;
use crate::fault::Fault;

/// Size of a page where the request does not say, and the largest one.
const SIZE_DEFAULT: usize = 100;
const SIZE_MAX: u32 = 500;

/// `common.v1.Pagination`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Pagination {
    page_size: u32,
    page_token: String,
}

impl Pagination {
    /// The first page, of that size.
    pub(super) fn first(page_size: u32) -> Pagination {
        Pagination { page_size, page_token: String::new() }
    }

    /// The page behind a token.
    pub(super) fn behind(page_size: u32, page_token: String) -> Pagination {
        Pagination { page_size, page_token }
    }
}

/// The rows of one page.
pub(super) struct Page<'a> {
    size: usize,
    token: &'a str,
}

impl<'a> Page<'a> {
    /// The page that a request asks for.
    pub(super) fn of(page: Option<&'a Pagination>) -> Result<Page<'a>, Fault> {
        match page {
            None => Ok(Page { size: SIZE_DEFAULT, token: "" }),
            Some(page) if page.page_size > SIZE_MAX => Err(out_of_range("page.page_size", 0, SIZE_MAX)),
            Some(page) if page.page_size == 0 => Ok(Page { size: SIZE_DEFAULT, token: &page.page_token }),
            Some(page) => Ok(Page { size: page.page_size as usize, token: &page.page_token }),
        }
    }

    /// The rows of the page, out of rows in order of their keys, and the next page's token; empty after the last page.
    pub(super) fn take<T>(&self, rows: impl IntoIterator<Item = (String, T)>) -> (Vec<T>, String) {
        let mut rows = rows.into_iter().filter(|(key, _)| self.token.is_empty() || key.as_str() > self.token);
        let mut taken = Vec::new();
        let mut last = String::new();
        for (key, row) in rows.by_ref().take(self.size) {
            taken.push(row);
            last = key;
        }
        let has_more = rows.next().is_some();
        (taken, if has_more { last } else { String::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other_until_the_last_one_has_no_token() {
        let rows = || (0..5).map(|n| (format!("k{n}"), n));
        let mut request = Pagination { page_size: 2, page_token: String::new() };
        let mut pages = Vec::new();
        loop {
            let (page, token) = Page::of(Some(&request)).unwrap().take(rows());
            pages.push(page);
            if token.is_empty() {
                break;
            }
            request.page_token = token;
        }
        assert_eq!(pages, [vec![0, 1], vec![2, 3], vec![4]]);
    }

    #[test]
    fn a_page_larger_than_the_largest_is_refused() {
        let request = Pagination { page_size: 501, page_token: String::new() };
        let fault = Page::of(Some(&request)).err().unwrap();
        assert_eq!(fault.message(), "page_size must be 0 to 500");
    }
}
