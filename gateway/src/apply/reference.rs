//! `${NAME}` and `${NAME:-default}` in the texts of the file; `$${` for the two characters themselves.

use std::ffi::OsString;

use crate::settings::Secret;

/// Where variables are looked up.
pub type Environment<'a> = dyn Fn(&str) -> Option<OsString> + 'a;

/// A text with its references replaced.
///
/// # Errors
/// The rest of a sentence: a variable that is not set, or a reference that cannot be read.
pub(super) fn replace(text: &str, environment: &Environment<'_>) -> Result<String, String> {
    let mut whole = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        // `$${`: the first `$` says that the second is meant.
        if let Some(before) = before.strip_suffix('$') {
            whole += before;
            whole += "${";
            rest = after;
            continue;
        }
        whole += before;
        let (inside, after) = after
            .split_once('}')
            .ok_or("has a '${' without its '}': write '$${' for the characters themselves")?;
        whole += &value(inside, environment)?;
        rest = after;
    }
    Ok(whole + rest)
}

/// The secret that a text refers to, which must be nothing but a reference.
///
/// # Errors
/// The rest of a sentence.
pub(super) fn secret(text: &str, environment: &Environment<'_>) -> Result<Secret, String> {
    let name = text
        .strip_prefix("${")
        .and_then(|text| text.strip_suffix('}'))
        .filter(|name| is_name(name))
        .ok_or(LITERAL)?;
    value(name, environment).map(Secret::new)
}

const LITERAL: &str = "must be a reference to an environment variable, such as ${OPENAI_API_KEY}, and nothing else: whoever can read this file, its history or a copy of it could read a secret that stands in it";

/// The value of `NAME` or `NAME:-default`.
fn value(inside: &str, environment: &Environment<'_>) -> Result<String, String> {
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    if !is_name(name) {
        return Err(format!(
            "has a reference '${{{inside}}}' that names no variable: write ${{NAME}} or ${{NAME:-default}}, or '$${{' for the characters themselves"
        ));
    }
    let found = environment(name).map(OsString::into_string);
    match (found, default) {
        (Some(Ok(value)), None) => Ok(value),
        // As in a shell: `:-` stands for a variable that is empty, too.
        (Some(Ok(value)), Some(_)) if !value.is_empty() => Ok(value),
        (Some(Ok(_)) | None, Some(default)) => Ok(default.to_owned()),
        (Some(Err(_)), _) => Err(format!("refers to the variable {name}, which is no text")),
        (None, None) => Err(format!("refers to the variable {name}, which is not set")),
    }
}

fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    let first = bytes.next();
    first.is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(name: &str) -> Option<OsString> {
        use std::os::unix::ffi::OsStringExt;
        match name {
            "A" => Some("1".into()),
            "EMPTY" => Some("".into()),
            "NESTED" => Some("${A}".into()),
            "BYTES" => Some(OsString::from_vec(vec![0xff])),
            _ => None,
        }
    }

    #[test]
    fn references_are_replaced_once() {
        for (text, expected) in [
            ("", ""),
            ("plain $A $", "plain $A $"),
            ("${A}", "1"),
            ("x${A}y${A}z", "x1y1z"),
            ("${NESTED}", "${A}"),
            ("${EMPTY}", ""),
            ("${EMPTY:-d}", "d"),
            ("${NONE:-d}", "d"),
            ("${NONE:-}", ""),
            ("${A:-d}", "1"),
            ("${NONE:-a:-b}", "a:-b"),
            ("$${A}", "${A}"),
            ("$$${A}", "$${A}"),
            ("a$${b${A}", "a${b1"),
        ] {
            assert_eq!(
                replace(text, &environment).as_deref(),
                Ok(expected),
                "{text}"
            );
        }
    }

    #[test]
    fn what_cannot_be_replaced_is_named() {
        for (text, word) in [
            ("${NONE}", "NONE"),
            ("${A", "'}'"),
            ("${}", "'${}'"),
            ("${1A}", "'${1A}'"),
            ("${A-b}", "'${A-b}'"),
            ("${BYTES}", "BYTES"),
        ] {
            let error = replace(text, &environment).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn a_secret_is_a_reference_and_nothing_else() {
        assert_eq!(secret("${A}", &environment).unwrap().expose(), "1");
        for literal in [
            "sk-1",
            "",
            "sk-${A}",
            "${A}${A}",
            "${A:-sk-1}",
            "$${A}",
            "${A}\n",
        ] {
            let error = secret(literal, &environment).unwrap_err();
            assert_eq!(error, LITERAL, "{literal}");
        }
        assert!(
            secret("${NONE}", &environment)
                .unwrap_err()
                .contains("NONE")
        );
    }
}
