use super::*;

fn answered(status: u16, body: &str) -> Result<Drawn, ProviderError> {
    read(StatusCode::from_u16(status).unwrap(), body.as_bytes())
}

#[test]
fn a_token_is_read_out_of_its_answer() {
    let drawn = answered(
        200,
        r#"{"access_token":"24.x","expires_in":2592000,"refresh_token":"25.y"}"#,
    )
    .unwrap();
    assert_eq!(drawn.token.expose(), "24.x");
    assert_eq!(drawn.expires_in.as_secs(), 2_592_000);
}

#[test]
fn what_is_no_token_says_whose_fault_it_is_and_quotes_nothing() {
    let refused = r#"{"error":"invalid_client","error_description":"unknown client the-key"}"#;
    for (status, body, told) in [
        (401, refused, 502),
        (400, refused, 502),
        (200, refused, 502),
        (503, "the-key", 503),
        (429, "{}", 429),
        (200, r#"{"access_token":"the-key"}"#, 502),
        (
            200,
            r#"{"access_token":"the-key","expires_in":"the-key"}"#,
            502,
        ),
        (200, "the-key", 502),
    ] {
        let error = answered(status, body).err().expect(body);
        assert_eq!(error.client_status().as_u16(), told, "{status} {body}");
        assert!(!format!("{error:?}").contains("the-key"), "{error:?}");
    }
    assert!(answered(401, refused).err().unwrap().is_our_key());
    assert!(!answered(503, "").err().unwrap().is_our_key());
}

#[test]
fn a_token_that_an_error_quotes_is_taken_out() {
    let token = Secret::new("24.x".to_owned());
    let quoted = Bytes::from_static(br#"{"error_msg":"token 24.x expired"}"#);
    assert_eq!(
        &without(quoted, &token)[..],
        br#"{"error_msg":"token [token] expired"}"#
    );
    let other = Bytes::from_static(b"{\xff}");
    assert_eq!(without(other.clone(), &token), other);
}
