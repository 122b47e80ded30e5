//! ClickHouse's compressed blocks (`decompress=1`): checksum, method, sizes, data.
//! It refuses a block whose checksum or length is wrong.
//!
//! Block: CityHash128 (v1.0.2) of the rest · method u8 · compressed size u32 (with these 9 bytes) · size u32 · data.

/// Unpacks all blocks of a body.
pub fn unpack(mut body: &[u8]) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    while !body.is_empty() {
        let (sum, rest) = body.split_first_chunk::<16>().ok_or("a block ends early")?;
        let [method, a, b, c, d, e, f, g, h] = *rest.first_chunk::<9>().ok_or("a block ends early")?;
        let packed = u32::from_le_bytes([a, b, c, d]) as usize;
        let size = u32::from_le_bytes([e, f, g, h]) as usize;
        let (block, next) = rest.split_at_checked(packed).ok_or("a block ends early")?;
        if cityhash_rs::cityhash_102_128(block).rotate_right(64) != u128::from_le_bytes(*sum) {
            return Err("a block's checksum is wrong".into());
        }
        let content = block.get(9..).ok_or("a block is too short")?;
        match method {
            LZ4 => out.extend(lz4_flex::block::decompress(content, size).map_err(|fault| fault.to_string())?),
            NONE => out.extend_from_slice(content),
            other => return Err(format!("compression method {other:#x} is not built")),
        }
        body = next;
    }
    Ok(out)
}

const LZ4: u8 = 0x82;
const NONE: u8 = 0x02;
