//! What is wrong with a body, in the words of JSON: which values a field takes, and what came. Serde's own words are those of Rust.

use serde_json::Error;

/// What the parser found, without the strings that came: they may be texts, and clients log what they are answered.
pub(super) fn in_words(error: &Error) -> String {
    let message = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let bare = message.strip_suffix(&place).unwrap_or(&message);
    match bare {
        "lone leading surrogate in hex escape" | "unexpected end of hex escape" => format!(
            "a lone surrogate{place}: half of a pair such as \\ud83d\\ude00 is no character. Send both halves, or \\ufffd in its place"
        ),
        "invalid unicode code point" => format!("bytes that are not UTF-8{place}"),
        "number out of range" => format!("a number out of range{place}"),
        // Serde_json also calls data what serde refuses, and syntax what is no JSON.
        _ if !error.is_data() => format!("not JSON: {message}"),
        _ => of_data(bare),
    }
}

/// A value of the wrong type, or one out of range.
fn of_data(message: &str) -> String {
    let split = |start: &str| message.strip_prefix(start)?.rsplit_once(", expected ");
    if let Some((found, expected)) = split("invalid type: ").or_else(|| split("invalid value: ")) {
        return format!("must be {}, and is {}", taken(expected), came(found));
    }
    match split("invalid length ") {
        Some((length, expected)) => format!("must be {}, and has {length} or more", taken(expected)),
        None => message.to_owned(),
    }
}

/// The values that a field takes.
fn taken(expected: &str) -> &str {
    match expected {
        "a boolean" => "true or false",
        "u8" => "a whole number of 0 to 255",
        "u32" => "a whole number of 0 to 4294967295",
        "u64" | "usize" => "a whole number of 0 or more",
        "i64" => "a whole number",
        "a sequence" => "a list",
        other => other,
    }
}

/// The value that came.
fn came(found: &str) -> &str {
    let value = |kind: &str| found.strip_prefix(kind)?.strip_suffix('`');
    match found {
        _ if found.starts_with("string ") => "a string",
        "sequence" => "a list",
        "map" => "an object",
        other => ["integer `", "floating point `", "boolean `"].into_iter().find_map(value).unwrap_or(other),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::Value;

    use crate::http::choice::choice;
    use crate::http::extract::parse_here as parse;
    use crate::tokenize::Truncate;

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only whether they are read matters")]
    struct Fields {
        #[serde(default, deserialize_with = "choice")]
        name: Option<Truncate>,
        #[serde(default)]
        count: Option<usize>,
        #[serde(default)]
        whether: Option<bool>,
        #[serde(default)]
        text: Option<String>,
        #[serde(default)]
        texts: Option<Vec<String>>,
    }

    fn refused(body: &str) -> (Option<String>, String) {
        let error = parse::<Fields>(body.as_bytes()).unwrap_err();
        (error.param, error.message)
    }

    #[test]
    fn a_wrong_value_is_told_with_its_field_the_values_taken_and_what_came() {
        let names = "one of `end`, `start`, `error`";
        let (text, number) = ("a string", "a whole number of 0 or more");
        for (field, value, taken, came) in [
            ("name", "true", names, "true"),
            ("name", "1", names, "1"),
            ("name", "0.5", names, "0.5"),
            ("name", "[\"end\"]", names, "a list"),
            ("name", "{\"end\": null}", names, "an object"),
            ("name", "\"middle\"", names, "\"middle\""),
            ("name", "\"\"", names, "\"\""),
            ("count", "\"8\"", number, "a string"),
            ("count", "-1", number, "-1"),
            ("count", "1.5", number, "1.5"),
            ("count", "false", number, "false"),
            ("count", "[8]", number, "a list"),
            ("whether", "\"true, expected true\"", "true or false", "a string"),
            ("whether", "1", "true or false", "1"),
            ("text", "1", text, "1"),
            ("text", "[\"a\"]", text, "a list"),
            ("text", "{}", text, "an object"),
            ("texts", "\"a\"", "a list", "a string"),
            ("texts[1]", "[\"a\", null]", text, "null"),
        ] {
            let name = field.split('[').next().unwrap();
            let told = refused(&format!("{{\"{name}\": {value}}}"));
            let expected = format!("{field}: must be {taken}, and is {came}");
            assert_eq!(told, (Some(field.to_owned()), expected), "{field} {value}");
        }
        let long = format!("{{\"name\": \"{}\"}}", "x".repeat(1000));
        assert!(refused(&long).1.len() < 120, "{}", refused(&long).1);
        assert!(parse::<Fields>(b"{\"name\": null, \"count\": null, \"other\": [1]}").is_ok());
    }

    #[test]
    fn half_a_character_is_called_so_and_its_field_named() {
        for (field, value) in [
            ("text", r#""a \ud83d b""#),
            ("text", r#""\ud83d""#),
            ("text", r#""\ud83d\n""#),
            ("text", r#""\ud83d\u0041""#),
            ("text", r#""\ude00 a""#),
            ("texts[1]", r#"["a", "\ud83d"]"#),
            ("name", r#""\ud83d""#),
        ] {
            let name = field.split('[').next().unwrap();
            let (param, message) = refused(&format!("{{\"{name}\": {value}}}"));
            assert_eq!(param.as_deref(), Some(field), "{value}: {message}");
            assert!(message.starts_with(&format!("{field}: a lone surrogate at line 1")), "{message}");
        }
        assert!(parse::<Fields>(br#"{"text": "\ud83d\ude00"}"#).is_ok());
    }

    #[test]
    fn what_is_no_json_is_called_so() {
        for (body, expected) in [
            ("", "the body is not JSON: EOF"),
            ("{\"name\": tru}", "name: not JSON: expected ident at line 1"),
            ("{\"text\": \"a", "text: not JSON: EOF"),
            ("{} {}", "the body is not JSON: trailing characters"),
            ("[]", "the body must be an object, and is a list"),
            ("\"a\"", "the body must be an object, and is a string"),
            ("{\"count\": 1e999}", "count: a number out of range"),
        ] {
            let (_, message) = refused(body);
            assert!(message.starts_with(expected), "{body}: {message}");
        }
        let error = parse::<Fields>(b"{\"text\": \"\xff\"}").unwrap_err();
        assert!(error.message.starts_with("text: bytes that are not UTF-8"), "{}", error.message);
        assert!(parse::<Value>(b"{}").is_ok());
    }
}
