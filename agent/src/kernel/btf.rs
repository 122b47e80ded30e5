//! Byte offsets of fields of the kernel's structs, from its own BTF (Documentation/bpf/btf.rst).
//! It refuses to assume a layout: kernels differ.

use super::FenceError;

/// Where the programs find a process's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TaskOffsets {
    pub(super) group_leader: u32,
    pub(super) start_boottime: u32,
}

/// Where the programs find a cgroup's id, name and parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CgroupOffsets {
    /// In `cgroup`.
    pub(super) kn: u32,
    pub(super) root: u32,
    /// In `cgroup_root`.
    pub(super) hierarchy_id: u32,
    /// In `kernfs_node`.
    pub(super) id: u32,
    pub(super) parent: u32,
    pub(super) name: u32,
}

type Offsets = (TaskOffsets, Option<CgroupOffsets>);

/// Both. A kernel without the tracepoints of cgroups, or whose cgroups look otherwise, only loses what needs them.
pub(super) fn of_this_kernel() -> Result<Offsets, FenceError> {
    static FOUND: std::sync::OnceLock<Offsets> = std::sync::OnceLock::new();
    match FOUND.get() {
        Some(found) => Ok(*found),
        None => read().map(|found| *FOUND.get_or_init(|| found)),
    }
}

fn read() -> Result<Offsets, FenceError> {
    let bytes =
        std::fs::read("/sys/kernel/btf/vmlinux").map_err(|fault| FenceError::NoBtf(fault.to_string()))?;
    let btf = Btf::parse(&bytes).ok_or_else(|| FenceError::NoBtf("not in BTF format".into()))?;
    let [task, cgroup, root, node, birth, death] = btf
        .find([
            (KIND_STRUCT, b"task_struct"),
            (KIND_STRUCT, b"cgroup"),
            (KIND_STRUCT, b"cgroup_root"),
            (KIND_STRUCT, b"kernfs_node"),
            (KIND_TYPEDEF, b"btf_trace_cgroup_mkdir"),
            (KIND_TYPEDEF, b"btf_trace_cgroup_rmdir"),
        ])
        .ok_or_else(|| FenceError::NoBtf("not in BTF format".into()))?;
    let task = || {
        Some(TaskOffsets {
            group_leader: btf.field(task?, b"group_leader")?,
            start_boottime: btf.field(task?, b"start_boottime")?,
        })
    };
    let cgroup = || {
        birth.and(death)?;
        Some(CgroupOffsets {
            kn: btf.field(cgroup?, b"kn")?,
            root: btf.field(cgroup?, b"root")?,
            hierarchy_id: btf.field(root?, b"hierarchy_id")?,
            id: btf.field(node?, b"id")?,
            // Renamed in Linux 6.15.
            parent: btf.field(node?, b"parent").or_else(|| btf.field(node?, b"__parent"))?,
            name: btf.field(node?, b"name")?,
        })
    };
    let task = task()
        .ok_or_else(|| FenceError::NoBtf("no task_struct with group_leader and start_boottime".into()))?;
    Ok((task, cgroup()))
}

/// The members of a struct; of other types, nothing.
#[derive(Clone, Copy)]
struct Members<'a> {
    bytes: &'a [u8],
    has_bitfields: bool,
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

    /// The types of these kinds and names, the first of each; `None` in whole when the types cannot be walked.
    fn find<const N: usize>(&self, wanted: [(u32, &[u8]); N]) -> Option<[Option<Members<'a>>; N]> {
        let mut found = [None; N];
        let mut rest = self.types;
        while let Some((head, after)) = rest.split_at_checked(12) {
            let name = u32::from_ne_bytes(*head.first_chunk()?);
            let word = u32::from_ne_bytes(*head.get(4..)?.first_chunk()?);
            let (kind, count, has_bitfields) = (word >> 24 & 0x1f, (word & 0xffff) as usize, word >> 31 == 1);
            let (bytes, next) = after.split_at_checked(trailer(kind, count)?)?;
            let is_wanted =
                |(its_kind, its_name): &(u32, &[u8])| *its_kind == kind && self.name(name) == Some(*its_name);
            if let Some(place) = wanted.iter().position(is_wanted) {
                found[place].get_or_insert(Members { bytes, has_bitfields });
            }
            rest = next;
        }
        Some(found)
    }

    /// Byte offset of a field among the members of a struct.
    fn field(&self, members: Members<'_>, wanted: &[u8]) -> Option<u32> {
        let (each, _) = members.bytes.as_chunks::<12>();
        each.iter().find_map(|[n0, n1, n2, n3, _, _, _, _, o0, o1, o2, o3]| {
            (self.name(u32::from_ne_bytes([*n0, *n1, *n2, *n3])) == Some(wanted)).then_some(())?;
            let bits = u32::from_ne_bytes([*o0, *o1, *o2, *o3]);
            Some(if members.has_bitfields { bits & 0x00ff_ffff } else { bits } / 8)
        })
    }

    fn name(&self, offset: u32) -> Option<&[u8]> {
        self.strings.get(offset as usize..)?.split(|byte| *byte == 0).next()
    }
}

const KIND_STRUCT: u32 = 4;
const KIND_TYPEDEF: u32 = 8;

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
    fn this_kernel_has_all_fields() {
        if !std::path::Path::new("/sys/kernel/btf/vmlinux").exists() {
            return;
        }
        let (offsets, cgroup) = of_this_kernel().unwrap();
        assert!(cgroup.is_some_and(|cgroup| cgroup.kn > 0 && cgroup.root > 0), "{cgroup:?}");
        assert!(offsets.group_leader > 0 && offsets.start_boottime > 0, "{offsets:?}");
        assert!(offsets.group_leader < 16_384 && offsets.start_boottime < 16_384, "{offsets:?}");
    }

    #[test]
    fn garbage_is_refused() {
        assert!(Btf::parse(b"").is_none());
        assert!(Btf::parse(&[0x9f, 0xeb, 1, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).is_none());
    }
}
