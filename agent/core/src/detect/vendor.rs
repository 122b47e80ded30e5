//! Tokens of code hosts, chat, payment and package registries, by prefix and length.
//! It refuses publishable keys (`pk_…`), which are meant to be seen.

use alloc::vec::Vec;
use core::ops::Range;

use super::token::{Shape, Shapes, Tail, look_up};

pub(super) fn github(text: &[u8], at: usize, hits: &mut Vec<Range<usize>>) -> usize {
    look_up(text, at, &GITHUB, hits)
}

pub(super) fn gitlab(text: &[u8], at: usize, hits: &mut Vec<Range<usize>>) -> usize {
    look_up(text, at, &GITLAB, hits)
}

pub(super) fn slack(text: &[u8], at: usize, hits: &mut Vec<Range<usize>>) -> usize {
    look_up(text, at, &SLACK, hits)
}

pub(super) fn stripe(text: &[u8], at: usize, hits: &mut Vec<Range<usize>>) -> usize {
    look_up(text, at, &STRIPE, hits)
}

pub(super) fn package(text: &[u8], at: usize, hits: &mut Vec<Range<usize>>) -> usize {
    look_up(text, at, &PACKAGE, hits)
}

static GITHUB: Shapes = Shapes::new(&[
    Shape { prefix: b"ghp_", tail: Tail::Alphanumeric, least: 36 },
    Shape { prefix: b"gho_", tail: Tail::Alphanumeric, least: 36 },
    Shape { prefix: b"ghu_", tail: Tail::Alphanumeric, least: 36 },
    Shape { prefix: b"ghs_", tail: Tail::Alphanumeric, least: 36 },
    Shape { prefix: b"ghr_", tail: Tail::Alphanumeric, least: 36 },
    Shape { prefix: b"github_pat_", tail: Tail::Dashed, least: 60 },
]);

static GITLAB: Shapes = Shapes::new(&[
    Shape { prefix: b"glpat-", tail: Tail::Dashed, least: 20 },
    Shape { prefix: b"gldt-", tail: Tail::Dashed, least: 20 },
    Shape { prefix: b"glrt-", tail: Tail::Dashed, least: 20 },
]);

static SLACK: Shapes = Shapes::new(&[
    Shape { prefix: b"xoxb-", tail: Tail::Dashed, least: 20 },
    Shape { prefix: b"xoxp-", tail: Tail::Dashed, least: 20 },
    Shape { prefix: b"xoxa-", tail: Tail::Dashed, least: 20 },
    Shape { prefix: b"xoxr-", tail: Tail::Dashed, least: 20 },
    Shape { prefix: b"xoxs-", tail: Tail::Dashed, least: 20 },
    Shape { prefix: b"xoxe-", tail: Tail::Dashed, least: 20 },
    Shape { prefix: b"xapp-", tail: Tail::Dashed, least: 20 },
]);

static STRIPE: Shapes = Shapes::new(&[
    Shape { prefix: b"sk_live_", tail: Tail::Alphanumeric, least: 20 },
    Shape { prefix: b"sk_test_", tail: Tail::Alphanumeric, least: 20 },
    Shape { prefix: b"rk_live_", tail: Tail::Alphanumeric, least: 20 },
    Shape { prefix: b"rk_test_", tail: Tail::Alphanumeric, least: 20 },
    Shape { prefix: b"whsec_", tail: Tail::Alphanumeric, least: 30 },
]);

static PACKAGE: Shapes = Shapes::new(&[
    Shape { prefix: b"npm_", tail: Tail::Alphanumeric, least: 36 },
    Shape { prefix: b"pypi-", tail: Tail::Dashed, least: 60 },
]);
