//! Byte offsets of two fields of `task_struct`, from the kernel's own BTF (Documentation/bpf/btf.rst).
//! It refuses to assume a layout: kernels differ.

use super::FenceError;

/// Where the programs find a process's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TaskOffsets {
    pub(super) group_leader: u32,
    pub(super) start_boottime: u32,
}

impl TaskOffsets {
    pub(super) fn of_this_kernel() -> Result<Self, FenceError> {
        let bytes =
            std::fs::read("/sys/kernel/btf/vmlinux").map_err(|fault| FenceError::NoBtf(fault.to_string()))?;
        let btf = Btf::parse(&bytes).ok_or_else(|| FenceError::NoBtf("not in BTF format".into()))?;
        btf.offsets()
            .ok_or_else(|| FenceError::NoBtf("no task_struct with group_leader and start_boottime".into()))
    }
}

struct Btf<'a> {
    types: &'a [u8],
    strings: &'a [u8],
}

impl<'a> Btf<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let header = u32::from_ne_bytes(*bytes.get(4..)?.first_chunk()?) as usize;
        let word = |at: usize| Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?) as usize);
        (bytes.get(..2)? == 0xeb9f_u16.to_ne_bytes()).then_some(())?;
        let section = |offset: usize, length: usize| {
            let start = header.checked_add(offset)?;
            bytes.get(start..start.checked_add(length)?)
        };
        Some(Self { types: section(word(8)?, word(12)?)?, strings: section(word(16)?, word(20)?)? })
    }

    fn offsets(&self) -> Option<TaskOffsets> {
        let mut rest = self.types;
        while let Some((head, after)) = rest.split_at_checked(12) {
            let name = u32::from_ne_bytes(*head.first_chunk()?);
            let word = u32::from_ne_bytes(*head.get(4..)?.first_chunk()?);
            let (kind, count, has_bitfields) = (word >> 24 & 0x1f, (word & 0xffff) as usize, word >> 31 == 1);
            let (body, next) = after.split_at_checked(trailer(kind, count)?)?;
            if kind == KIND_STRUCT && self.name(name) == Some(b"task_struct") {
                let field = |wanted: &[u8]| self.field(body, wanted, has_bitfields);
                return Some(TaskOffsets {
                    group_leader: field(b"group_leader")?,
                    start_boottime: field(b"start_boottime")?,
                });
            }
            rest = next;
        }
        None
    }

    /// Byte offset of a field among the members of a struct.
    fn field(&self, members: &[u8], wanted: &[u8], has_bitfields: bool) -> Option<u32> {
        let (members, _) = members.as_chunks::<12>();
        members.iter().find_map(|[n0, n1, n2, n3, _, _, _, _, o0, o1, o2, o3]| {
            (self.name(u32::from_ne_bytes([*n0, *n1, *n2, *n3])) == Some(wanted)).then_some(())?;
            let bits = u32::from_ne_bytes([*o0, *o1, *o2, *o3]);
            Some(if has_bitfields { bits & 0x00ff_ffff } else { bits } / 8)
        })
    }

    fn name(&self, offset: u32) -> Option<&[u8]> {
        self.strings.get(offset as usize..)?.split(|byte| *byte == 0).next()
    }
}

const KIND_STRUCT: u32 = 4;

/// Bytes after the common 12, by kind.
fn trailer(kind: u32, count: usize) -> Option<usize> {
    Some(match kind {
        1 | 14 | 17 => 4,          // INT, VAR, DECL_TAG
        3 => 12,                   // ARRAY
        4 | 5 | 15 => count * 12,  // STRUCT, UNION, DATASEC
        6 | 13 => count * 8,       // ENUM, FUNC_PROTO
        19 => count * 12,          // ENUM64
        2 | 7..=12 | 16 | 18 => 0, // PTR, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT, FUNC, FLOAT, TYPE_TAG
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_has_both_fields() {
        if !std::path::Path::new("/sys/kernel/btf/vmlinux").exists() {
            return;
        }
        let offsets = TaskOffsets::of_this_kernel().unwrap();
        assert!(offsets.group_leader > 0 && offsets.start_boottime > 0, "{offsets:?}");
        assert!(offsets.group_leader < 16_384 && offsets.start_boottime < 16_384, "{offsets:?}");
    }

    #[test]
    fn garbage_is_refused() {
        assert!(Btf::parse(b"").is_none());
        assert!(Btf::parse(&[0x9f, 0xeb, 1, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).is_none());
    }
}
