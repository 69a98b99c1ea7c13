//! Holds the fields that requests are read with against `openapi.yaml`: neither has one that the other lacks.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde_json::Value;

use super::{admin, inference, openai, tei, tokens};

/// Fails on purpose, with the names of the fields that the type asks for.
#[derive(Debug)]
struct Fields(&'static [&'static str]);

impl fmt::Display for Fields {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}", self.0)
    }
}

impl std::error::Error for Fields {}

impl de::Error for Fields {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self(&[])
    }
}

impl<'de> Deserializer<'de> for Fields {
    type Error = Self;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self> {
        Err(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Self> {
        Err(Self(fields))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct seq
        tuple tuple_struct map enum identifier ignored_any
    }
}

fn read<'de, T: Deserialize<'de>>() -> BTreeSet<String> {
    match T::deserialize(Fields(&[])) {
        Ok(_) => BTreeSet::new(),
        Err(fields) => fields.0.iter().map(|field| (*field).to_owned()).collect(),
    }
}

#[test]
fn requests_are_read_with_the_documented_fields_and_no_others() {
    let document: Value = serde_norway::from_str(include_str!("../../openapi.yaml")).unwrap();
    let documented = |schema: &Value| -> BTreeSet<String> {
        schema["properties"].as_object().unwrap().keys().cloned().collect()
    };
    let schemas = &document["components"]["schemas"];
    let checked = [
        ("CreateEmbeddings", read::<openai::CreateEmbeddings>()),
        ("Embed", read::<tei::Embed>()),
        ("Similarity", read::<tei::Similarity>()),
        ("Tokenize", read::<tokens::Tokenize>()),
        ("Decode", read::<tokens::Decode>()),
        ("InferRequest", read::<inference::InferRequest>()),
        ("IndexRequest", read::<inference::IndexRequest>()),
        ("RolloutRequest", read::<admin::RolloutRequest>()),
        ("PromoteRequest", read::<admin::PromoteRequest>()),
        ("RollbackRequest", read::<admin::RollbackRequest>()),
        ("RetireRequest", read::<admin::RetireRequest>()),
        ("AliasRequest", read::<admin::AliasRequest>()),
        ("VerifyRequest", read::<admin::VerifyRequest>()),
    ];
    for (name, fields) in &checked {
        assert_eq!(*fields, documented(&schemas[*name]), "{name}");
    }
    let similarity = &schemas["Similarity"]["properties"];
    assert_eq!(read::<tei::Pairs>(), documented(&similarity["inputs"]));
    assert_eq!(read::<tei::Cut>(), documented(&similarity["parameters"]));
    let infer = &schemas["InferRequest"]["properties"];
    assert_eq!(read::<inference::Parameters>(), documented(&infer["parameters"]));
    let (tensor, asked) = (&infer["inputs"]["items"], &infer["outputs"]["items"]);
    assert_eq!(read::<inference::Tensor>(), documented(tensor));
    assert_eq!(read::<inference::TensorParameters>(), documented(&tensor["properties"]["parameters"]));
    assert_eq!(read::<inference::Asked>(), documented(asked));
    assert_eq!(read::<inference::OutputParameters>(), documented(&asked["properties"]["parameters"]));
    // Every body that a route takes is one of these.
    let bodies = document["paths"].as_object().unwrap().values().filter_map(|item| {
        item["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"].as_str()
    });
    for body in bodies {
        let name = body.rsplit('/').next().unwrap();
        assert!(checked.iter().any(|(checked, _)| *checked == name), "{body}");
    }
}
