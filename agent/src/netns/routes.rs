//! Whether v6 leads anywhere from a network namespace, by its routing table (proc_pid_net(5), `ipv6_route`). The hop lets
//! every `connect` succeed, so a client with two families must be told beforehand. It refuses to guess from addresses.

/// Of the namespace of the calling thread. A kernel without IPv6 has no such table.
pub(super) fn has_global6() -> bool {
    std::fs::read_to_string("/proc/thread-self/net/ipv6_route")
        .is_ok_and(|table| table.lines().any(leads_out))
}

/// Destination, prefix length, source, its prefix length, next hop, metric, references, uses, flags, device: all in hex.
fn leads_out(line: &str) -> bool {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [destination, length, _, _, _, _, _, _, flags, device] = words.as_slice() else { return false };
    let first = destination.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
    let (Some(first), Ok(length), Ok(flags)) =
        (first, u8::from_str_radix(length, 16), u32::from_str_radix(flags, 16))
    else {
        return false;
    };
    // The first bits that both prefixes have.
    let shift = 8 - length.min(3);
    let meets_global = length == 0 || first >> shift == 0x20 >> shift;
    meets_global && *device != "lo" && flags & (REJECT | ANYCAST | LOCAL) == 0
}

/// `RTF_REJECT`, `RTF_ANYCAST`, `RTF_LOCAL` (include/uapi/linux/ipv6_route.h).
const REJECT: u32 = 0x0200;
const ANYCAST: u32 = 0x0010_0000;
const LOCAL: u32 = 0x8000_0000;

#[cfg(test)]
mod tests {
    use super::*;

    fn line(destination: &str, length: u8, flags: u32, device: &str) -> String {
        let zeros = "0".repeat(32);
        format!(
            "{destination:0<32} {length:02x} {zeros} 00 {zeros} 00000400 00000001 00000000 {flags:08x} {device:>8}"
        )
    }

    #[test]
    fn routes_to_global_addresses_are_told_from_the_others() {
        for (destination, length, flags, device, leads) in [
            ("", 0, 3, "eth0", true),
            ("", 0, REJECT, "lo", false),
            ("2", 3, 1, "eth0", true),
            ("20010db8", 32, 1, "eth0", true),
            ("20010db8", 128, LOCAL | 1, "eth0", false),
            ("20010db8", 128, ANYCAST | 1, "eth0", false),
            ("fd", 64, 1, "eth0", false),
            ("fe80", 64, 1, "eth0", false),
            ("ff", 8, 1, "eth0", false),
            ("", 1, 1, "eth0", true),
            ("8", 1, 1, "eth0", false),
            ("20010db8", 32, 1, "lo", false),
        ] {
            assert_eq!(
                leads_out(&line(destination, length, flags, device)),
                leads,
                "{destination}/{length} {device}"
            );
        }
        assert!(!leads_out("") && !leads_out("garbage"));
    }
}
