//! JSON: what is accepted is what another parser accepts, tokens lie where they are said to lie, quoting is undone by reading.

use weir_core::wire::json::{Documents, Kind, quote, scan, unescape};

pub const SEEDS: &[&[u8]] = &[
    br#"{"model":"gpt","messages":[{"role":"user","content":"hi \u0034\ud83d\ude00"}],"n":-1.5e+3,"s":null}"#,
    br#"[[[[1,true,false]]],{"a":{"a":"b"}}]"#,
    b"{\"a\":1}\n{\"b\":2}\n",
];

pub fn run(bytes: &[u8]) {
    let mut last = 0;
    let accepted = scan(bytes, Documents::One, |_, range, kind| {
        assert!(range.start >= last && range.end <= bytes.len() && range.start < range.end);
        last = range.end;
        let token = std::str::from_utf8(&bytes[range]).expect("a token is text");
        if kind == Kind::String {
            let text = unescape(token).expect("a string token that was shown can be read");
            let mut quoted = Vec::new();
            quote(&text, &mut quoted);
            let quoted = std::str::from_utf8(&quoted).expect("quoted text is text");
            assert_eq!(unescape(quoted).as_deref(), Ok(&*text));
        }
    });
    // The other parser knows no bound on numbers' digits or our bound on depth, so only one direction holds.
    if accepted.is_ok() {
        let other: Result<serde_json::Value, _> = serde_json::from_slice(bytes);
        assert!(other.is_ok() || other.is_err_and(|error| error.to_string().contains("out of range")));
    }
    let _ = scan(bytes, Documents::Many, |_, _, _| {});
}
