use super::*;

fn refused(body: &str) -> (Option<String>, String) {
    let error = ChatRequest::parse(body.as_bytes()).unwrap_err();
    (error.param, error.message)
}

#[test]
fn a_request_is_read_and_keeps_what_it_does_not_know() {
    let body = br#"{"model":"m","messages":[{"role":"user","content":"hi","x":[1.0]}],"stream":true,"stream_options":{"include_usage":true},"user":"u","novel":{"a":1}}"#;
    let request = ChatRequest::parse(body).unwrap();
    assert_eq!(
        (request.model.as_ref(), request.user.as_deref()),
        ("m", Some("u"))
    );
    assert!(request.stream && request.include_usage);
    assert_eq!(
        request.messages[0].get(),
        r#"{"role":"user","content":"hi","x":[1.0]}"#
    );
    assert_eq!(request.members.get("novel").unwrap().get(), r#"{"a":1}"#);
}

#[test]
fn null_is_the_same_as_absent() {
    let body = br#"{"model":"m","messages":[{"role":"user"}],"stream":null,"stream_options":null,"user":null}"#;
    let request = ChatRequest::parse(body).unwrap();
    assert!(!request.stream && !request.include_usage && request.user.is_none());
}

#[test]
fn what_is_wrong_is_named() {
    let cases = [
        ("", None),
        ("[]", None),
        (
            "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"\u{1}\"}]}",
            None,
        ),
        (r#"{"model":"m"}{"#, None),
        (r#"{"messages":[{"role":"user"}]}"#, Some("model")),
        (r#"{"model":7,"messages":[{"role":"user"}]}"#, Some("model")),
        (
            r#"{"model":"","messages":[{"role":"user"}]}"#,
            Some("model"),
        ),
        (r#"{"model":"m"}"#, Some("messages")),
        (r#"{"model":"m","messages":null}"#, Some("messages")),
        (r#"{"model":"m","messages":[]}"#, Some("messages")),
        (r#"{"model":"m","messages":"hi"}"#, Some("messages")),
        (
            r#"{"model":"m","messages":[{"role":"user"},"hi"]}"#,
            Some("messages[1]"),
        ),
        (r#"{"model":"m","messages":[{}]}"#, Some("messages[0].role")),
        (
            r#"{"model":"m","messages":[{"role":1}]}"#,
            Some("messages[0].role"),
        ),
        (
            r#"{"model":"m","messages":[{"role":"user"}],"stream":"yes"}"#,
            Some("stream"),
        ),
        (
            r#"{"model":"m","messages":[{"role":"user"}],"stream_options":1}"#,
            Some("stream_options"),
        ),
        (
            r#"{"model":"m","messages":[{"role":"user"}],"stream_options":[true]}"#,
            Some("stream_options"),
        ),
        (
            r#"{"model":"m","messages":[{"role":"user"}],"user":1}"#,
            Some("user"),
        ),
        (
            r#"{"model":"m","messages":[{"role":"user"}],"model":"n"}"#,
            Some("model"),
        ),
        (
            r#"{"model":"m","messages":[{"role":"user","content":"\ud800"}]}"#,
            Some("messages"),
        ),
        (
            r#"{"model":"m","messages":[{"role":"user"}],"top_p":1e999}"#,
            Some("top_p"),
        ),
    ];
    for (body, param) in cases {
        assert_eq!(refused(body).0.as_deref(), param, "{body}");
    }
    let invalid_utf8 = b"{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"\xff\"}]}";
    let error = ChatRequest::parse(invalid_utf8).unwrap_err();
    assert_eq!(error.param, None);
    assert_eq!(error.message, "The body is not UTF-8.");
}

#[test]
fn a_sentence_is_for_people_who_know_neither_rust_nor_positions() {
    let with = |member: &str| format!(r#"{{"model":"m","messages":[{{"role":"user"}}],{member}}}"#);
    for (body, message) in [
        (
            "{".to_owned(),
            "The body is not a JSON object: EOF while parsing an object.",
        ),
        (
            "[]".to_owned(),
            "The body is not a JSON object: invalid type: sequence, expected an object.",
        ),
        (with(r#""stream":"yes""#), "`stream` must be a boolean."),
        (
            with(r#""stream_options":7"#),
            "`stream_options` must be an object.",
        ),
        (
            with(r#""stream_options":{"include_usage":"yes"}"#),
            "`stream_options` must be an object in which `include_usage` is a boolean.",
        ),
        (
            with(r#""top_p":1e999"#),
            "`top_p` cannot be read: number out of range.",
        ),
    ] {
        assert_eq!(refused(&body).1, message, "{body}");
    }
}

#[test]
fn bounds_hold() {
    let message = r#"{"role":"user"},"#.repeat(MESSAGES_MAX);
    let body = |more: &str| format!(r#"{{"model":"m","messages":[{message}{more}]}}"#);
    assert_eq!(
        refused(&body(r#"{"role":"user"}"#)).0.as_deref(),
        Some("messages")
    );
    let long = format!(
        r#"{{"model":"{}","messages":[{{"role":"user"}}]}}"#,
        "x".repeat(NAME_CHARS_MAX + 1)
    );
    assert_eq!(refused(&long).0.as_deref(), Some("model"));
    let members: Vec<String> = (0..MEMBERS_MAX).map(|n| format!(r#""m{n}":1,"#)).collect();
    let members = members.concat();
    let body = format!(r#"{{{members}"model":"m"}}"#);
    assert!(refused(&body).1.contains("members"));
}

#[test]
fn a_body_is_copied_only_where_it_changes() {
    let body = Bytes::from_static(br#"{ "model":"m","messages":[{"role":"user"}] }"#);
    let request = ChatRequest::parse(&body).unwrap();
    assert_eq!(request.body_for(&body, "m").as_ptr(), body.as_ptr());
    assert_eq!(
        request.body_for(&body, "n\""),
        r#"{"model":"n\"","messages":[{"role":"user"}]}"#
    );
}

#[test]
fn a_bound_that_is_said_twice_is_said_once_where_a_name_is_not_known() {
    let body = |members: &str| {
        let body = format!(r#"{{"model":"m","messages":[{{"role":"user"}}],{members}}}"#);
        Bytes::from(body)
    };
    let both = body(r#""max_tokens":7,"max_completion_tokens":7"#);
    let request = ChatRequest::parse(&both).unwrap();
    for (left_out, left) in [
        ("max_tokens", r#""max_completion_tokens":7"#),
        ("max_completion_tokens", r#""max_tokens":7"#),
    ] {
        assert_eq!(request.body_bounded(&both, "m", left_out), body(left));
    }
    // What a client means by two bounds is the provider's to say.
    for other in [
        r#""max_tokens":7,"max_completion_tokens":8"#,
        r#""max_tokens":7"#,
        r#""max_completion_tokens":7"#,
    ] {
        let other = body(other);
        let request = ChatRequest::parse(&other).unwrap();
        assert_eq!(request.body_bounded(&other, "m", "max_tokens"), other);
    }
}
