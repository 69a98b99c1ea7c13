//! Documents of a model that are numbered and never changed: the log of its rollouts, its drift references.

use object_store::path::Path as Key;

use super::{Repository, Result};

/// Numbers have eight digits: a store lists names by their bytes, and with a ninth the order would be another.
pub(crate) const LAST_NUMBER: u64 = 99_999_999;

/// Where documents of one kind lie: `<model>/<directory>/<number>.<extension>`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Numbered<'a> {
    pub(crate) model: &'a str,
    pub(crate) directory: &'static str,
    pub(crate) extension: &'static str,
}

impl Numbered<'_> {
    /// The key of the document of that number.
    pub(crate) fn key(&self, number: u64) -> Key {
        Key::from_iter([self.model, self.directory, &format!("{number:08}.{}", self.extension)])
    }

    /// The number of the document at `key`, if it is one. Only those directly below the directory are, by the names that they are
    /// written with: `2.json` beside `00000002.json` would make two documents of one number.
    fn number(&self, key: &Key) -> Option<u64> {
        let number = key.filename()?.split_once('.')?.0.parse().ok()?;
        (*key == self.key(number)).then_some(number)
    }
}

impl Repository {
    /// Numbers of the documents above `known`, ascending.
    pub(crate) async fn numbers_after(&self, documents: Numbered<'_>, known: u64) -> Result<Vec<u64>> {
        let directory = Key::from_iter([documents.model, documents.directory]);
        let keys = self.list_after(&directory, &documents.key(known)).await?;
        let mut numbers: Vec<u64> = keys.iter().filter_map(|key| documents.number(key)).collect();
        numbers.retain(|number| (known + 1..=LAST_NUMBER).contains(number));
        numbers.sort_unstable();
        Ok(numbers)
    }
}
