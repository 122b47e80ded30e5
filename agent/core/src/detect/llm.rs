//! Keys of model providers, by prefix and length.
//! It refuses keys without a prefix (Mistral, Cohere, Azure): nothing tells them from ids; declare a pattern for yours.

use alloc::vec::Vec;
use core::ops::Range;

use super::token::{Shape, Shapes, Tail, look_up};

pub(super) fn probe(text: &[u8], at: usize, hits: &mut Vec<Range<usize>>) -> usize {
    look_up(text, at, &SHAPES, hits)
}

/// More telling prefixes first.
static SHAPES: Shapes = Shapes::new(&[
    // OpenAI: project, service account, admin and user keys, then the old form, which others copied (DeepSeek, …).
    Shape { prefix: b"sk-proj-", tail: Tail::Dashed, least: 20 },
    Shape { prefix: b"sk-svcacct-", tail: Tail::Dashed, least: 20 },
    Shape { prefix: b"sk-admin-", tail: Tail::Dashed, least: 20 },
    Shape { prefix: b"sk-None-", tail: Tail::Dashed, least: 20 },
    // Anthropic.
    Shape { prefix: b"sk-ant-", tail: Tail::Dashed, least: 20 },
    // OpenRouter.
    Shape { prefix: b"sk-or-", tail: Tail::Dashed, least: 20 },
    Shape { prefix: b"sk-", tail: Tail::DashedLater, least: 20 },
    // Google: `AIza` and 35 more; the `z` triggers, so the `a` counts as the first of the tail.
    Shape { prefix: b"AIz", tail: Tail::Dashed, least: 36 },
    // Hugging Face: user and organisation tokens.
    Shape { prefix: b"hf_", tail: Tail::Alphanumeric, least: 30 },
    Shape { prefix: b"api_org_", tail: Tail::Alphanumeric, least: 30 },
    // Groq, xAI, Perplexity, Replicate, NVIDIA, Cerebras, Together, Fireworks, Voyage.
    Shape { prefix: b"gsk_", tail: Tail::Alphanumeric, least: 40 },
    Shape { prefix: b"xai-", tail: Tail::Alphanumeric, least: 40 },
    Shape { prefix: b"pplx-", tail: Tail::Alphanumeric, least: 32 },
    Shape { prefix: b"r8_", tail: Tail::Alphanumeric, least: 30 },
    Shape { prefix: b"nvapi-", tail: Tail::Dashed, least: 40 },
    Shape { prefix: b"csk-", tail: Tail::Alphanumeric, least: 40 },
    Shape { prefix: b"tgp_v1_", tail: Tail::Dashed, least: 30 },
    Shape { prefix: b"fw_", tail: Tail::Alphanumeric, least: 22 },
    Shape { prefix: b"pa-", tail: Tail::DashedLater, least: 30 },
]);
