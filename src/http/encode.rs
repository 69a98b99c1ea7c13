//! Vectors as they stand in JSON answers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Serialize, Serializer};

/// A vector in JSON: an array of numbers, each in the fewest digits that read back as the same `f32`, or base64.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(untagged)]
pub enum Encoded<'a> {
    /// Numbers.
    Floats(&'a [f32]),
    /// Base64 of little-endian 32-bit floats, as OpenAI's clients ask for it.
    #[serde(serialize_with = "base64")]
    Base64(&'a [f32]),
}

fn base64<S: Serializer>(vector: &[f32], serializer: S) -> Result<S::Ok, S::Error> {
    let mut bytes = Vec::with_capacity(size_of_val(vector));
    for value in vector {
        bytes.extend_from_slice(&value.to_le_bytes());
    }
    serializer.serialize_str(&STANDARD.encode(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_are_numbers_or_little_endian_base64() {
        let vector = [1.0, -0.1, 1e-12];
        let json = |encoded: Encoded<'_>| serde_json::to_string(&encoded).unwrap();
        let numbers: Vec<f32> = serde_json::from_str(&json(Encoded::Floats(&vector))).unwrap();
        assert_eq!(numbers, vector);
        let text: String = serde_json::from_str(&json(Encoded::Base64(&vector))).unwrap();
        let bytes = STANDARD.decode(text).unwrap();
        assert_eq!(
            bytes.as_chunks().0.iter().map(|&value| f32::from_le_bytes(value)).collect::<Vec<_>>(),
            vector
        );
    }
}
