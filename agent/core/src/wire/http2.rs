//! The two frames of HTTP/2 that send a client back to HTTP/1.1 (RFC 9113 sections 6.5, 6.8 and 7).
//! It refuses to speak more of it: no stream is ever opened.

use alloc::vec::Vec;

/// An empty SETTINGS frame, which every server begins with, and GOAWAY with `HTTP_1_1_REQUIRED`: no request was or will
/// be processed, ask again in HTTP/1.1. `why` is the debug text, cut to its limit.
#[must_use]
pub fn http11_required(why: &str) -> Vec<u8> {
    let why = why.as_bytes().get(..DEBUG_BYTES).unwrap_or(why.as_bytes());
    let mut frames = Vec::new();
    frame(&mut frames, SETTINGS, &[]);
    let last_stream = 0_u32.to_be_bytes();
    frame(&mut frames, GOAWAY, &[&last_stream[..], &HTTP_1_1_REQUIRED.to_be_bytes(), why].concat());
    frames
}

/// A frame of the connection itself (stream 0) without flags; `payload` is shorter than 16 KiB, which every peer takes.
fn frame(frames: &mut Vec<u8>, kind: u8, payload: &[u8]) {
    let [_, length @ ..] = (payload.len() as u32).to_be_bytes();
    frames.extend_from_slice(&length);
    frames.extend_from_slice(&[kind, 0, 0, 0, 0, 0]);
    frames.extend_from_slice(payload);
}

const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const HTTP_1_1_REQUIRED: u32 = 0xd;
const DEBUG_BYTES: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frames_are_those_of_the_standard() {
        let expected = b"\0\0\0\x04\0\0\0\0\0\0\0\x0a\x07\0\0\0\0\0\0\0\0\0\0\0\0\x0dno";
        assert_eq!(http11_required("no"), expected);
        assert_eq!(http11_required(&"x".repeat(5_000)).len(), 9 + 9 + 8 + DEBUG_BYTES);
    }
}
