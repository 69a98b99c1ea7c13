//! Documents of a model that are numbered and never changed: the log of its rollouts, its drift references.

use object_store::ObjectMeta;
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

/// A document as a listing has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) number: u64,
    /// Another one for another object, though it has the same key.
    pub(crate) stamp: String,
}

impl Listed {
    fn new(number: u64, object: ObjectMeta) -> Self {
        let ObjectMeta { e_tag, last_modified, size, .. } = object;
        Self { number, stamp: e_tag.unwrap_or_else(|| format!("{last_modified}, {size} bytes")) }
    }
}

impl Repository {
    /// The documents above `known`, ascending.
    pub(crate) async fn listed_after(&self, documents: Numbered<'_>, known: u64) -> Result<Vec<Listed>> {
        let directory = Key::from_iter([documents.model, documents.directory]);
        let objects = self.list_after(&directory, &documents.key(known)).await?.into_iter();
        let mut listed: Vec<Listed> = objects
            .filter_map(|object| Some(Listed::new(documents.number(&object.location)?, object)))
            .filter(|listed| (known + 1..=LAST_NUMBER).contains(&listed.number))
            .collect();
        listed.sort_unstable_by_key(|listed| listed.number);
        Ok(listed)
    }

    /// Their numbers.
    pub(crate) async fn numbers_after(&self, documents: Numbered<'_>, known: u64) -> Result<Vec<u64>> {
        Ok(self.listed_after(documents, known).await?.into_iter().map(|listed| listed.number).collect())
    }
}
