//! Service bindings (RFC 9460): HTTP/3 and encrypted ClientHello are taken out of them, byte for byte in place, since
//! pointers elsewhere in the message count its bytes. It refuses records whose parameters it cannot walk.

const MANDATORY: u16 = 0;
const ALPN: u16 = 1;
const ECH: u16 = 5;
/// A key for private use (RFC 9460, 14.3.2) that fills the room of what was taken out; clients skip it.
const FILLER: u16 = 65_534;
/// Key and length of a parameter.
const HEAD: usize = 4;

/// Takes `ech` out of a record's data, and makes its `h3` protocols unknown ones. `None`: it cannot be walked.
pub(super) fn scrub(data: &mut [u8]) -> Option<()> {
    let mut at = 2 + target_bytes(data.get(2..)?)?;
    let mut last = None;
    while at < data.len() {
        let (key, value, end) = parameter(data, at)?;
        if last.is_some_and(|last| last >= key) {
            return None;
        }
        last = Some(key);
        match key {
            ALPN => forget_h3(data.get_mut(value..end)?)?,
            // It would ask for a parameter that is taken out; without it the client goes on with what it knows.
            MANDATORY if names(data.get(value..end)?, ECH) => return None,
            ECH => {
                move_to_end(data, at, end);
                // The room it leaves is at the end now; what followed it starts here.
                let room = data.len() - (end - at);
                return scrub_rest(data, at, room, key);
            }
            _ => {}
        }
        at = end;
    }
    Some(())
}

/// The parameters between `at` and `room`, where the filler begins: only their order is left to check,
/// and that none stands where the filler has to.
fn scrub_rest(data: &mut [u8], mut at: usize, room: usize, mut last: u16) -> Option<()> {
    while at < room {
        let (key, _, end) = parameter(data.get(..room)?, at)?;
        if last >= key || key >= FILLER {
            return None;
        }
        (last, at) = (key, end);
    }
    let bytes = data.get_mut(room..)?;
    let length = u16::try_from(bytes.len().checked_sub(HEAD)?).ok()?;
    bytes.fill(0);
    bytes[..2].copy_from_slice(&FILLER.to_be_bytes());
    bytes[2..HEAD].copy_from_slice(&length.to_be_bytes());
    Some(())
}

fn move_to_end(data: &mut [u8], from: usize, to: usize) {
    data[from..].rotate_left(to - from);
}

/// Key, and where its value begins and ends.
fn parameter(data: &[u8], at: usize) -> Option<(u16, usize, usize)> {
    let head: &[u8; HEAD] = data.get(at..)?.first_chunk()?;
    let value = at + HEAD;
    let end = value + usize::from(u16::from_be_bytes([head[2], head[3]]));
    (end <= data.len()).then_some((u16::from_be_bytes([head[0], head[1]]), value, end))
}

/// Length of the target name, which is never compressed.
fn target_bytes(data: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let length = *data.get(at)?;
        at += 1 + usize::from(length);
        match length {
            0 => return Some(at),
            1..=63 => {}
            64.. => return None,
        }
    }
}

/// Renames every protocol that is HTTP/3 or one of its drafts (`h3`, `h3-29`) to one that nobody speaks.
fn forget_h3(mut list: &mut [u8]) -> Option<()> {
    while let Some((length, rest)) = list.split_first_mut() {
        let (protocol, next) = rest.split_at_mut_checked(usize::from(*length))?;
        if protocol.is_empty() {
            return None;
        }
        if protocol.starts_with(b"h3") {
            protocol[0] = b'-';
        }
        list = next;
    }
    Some(())
}

fn names(keys: &[u8], key: u16) -> bool {
    keys.chunks(2).any(|pair| pair == key.to_be_bytes())
}
