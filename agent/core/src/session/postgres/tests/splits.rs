//! Any split of either stream gives the same bytes and records; random bytes never panic and never get past start-up.

use proptest::prelude::*;

use super::*;

/// One side's bytes at a point of a conversation.
#[derive(Debug, Clone)]
enum Say {
    Client(Vec<u8>),
    Server(Vec<u8>),
    Catalog,
}

fn conversation(masking: bool) -> Vec<Say> {
    let described =
        [framed(b't', &[0, 0]), columns(&[("id", 100, 1, 23, 0), ("ssn", 100, 2, 25, 0)])].concat();
    let rows: Vec<u8> = (0..5).flat_map(|_| data_row(&[Some(b"1"), Some(b"101-02 SSN-4")])).collect();
    let own = if masking { described.clone() } else { vec![] };
    vec![
        Say::Client(startup(&[("user", "ann")])),
        Say::Server(framed(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0")),
        Say::Client(framed(b'p', b"answer")),
        Say::Server([ok(), parameter("client_encoding", "UTF8"), ready(b'I')].concat()),
        Say::Catalog,
        Say::Client([query("select id, ssn from t"), query("drop x")].concat()),
        Say::Server(
            [
                columns(&[("id", 100, 1, 23, 0), ("ssn", 100, 2, 25, 0)]),
                rows.clone(),
                complete("SELECT 5"),
                ready(b'I'),
                server_error("ERROR", "42601", "x"),
                ready(b'I'),
            ]
            .concat(),
        ),
        Say::Client([parse("s", "select id, ssn from t"), framed(b'D', b"Ss\0"), sync()].concat()),
        Say::Server([tagged(b'1'), own, described, ready(b'I')].concat()),
        Say::Client([bind("", "s", None), execute(""), sync(), query("copy x from stdin")].concat()),
        Say::Server(
            [tagged(b'2'), rows, complete("SELECT 5"), ready(b'I'), framed(b'G', &[0, 0, 1, 0, 0])].concat(),
        ),
        Say::Client([framed(b'd', &[b'x'; 90]), tagged(b'c')].concat()),
        Say::Server([complete("COPY 1"), ready(b'I'), framed(b'N', b"SNOTICE\0MSSN-77\0\0")].concat()),
        Say::Client(tagged(b'X')),
    ]
}

fn play(rules: Words, says: &[Say], cuts: &[usize]) -> Rig {
    let mut rig = Rig::new(rules);
    let mut cuts = cuts.iter().cycle();
    for say in says {
        let (bytes, client) = match say {
            Say::Client(bytes) => (bytes, true),
            Say::Server(bytes) => (bytes, false),
            Say::Catalog => {
                rig.answer_catalog();
                continue;
            }
        };
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let (now, later) = rest.split_at((*cuts.next().unwrap()).clamp(1, rest.len()));
            if client {
                rig.client(now)
            } else {
                rig.server(now)
            }
            rest = later;
        }
    }
    rig
}

#[test]
fn without_masks_both_streams_pass_byte_for_byte() {
    let says = conversation(false);
    let says: Vec<Say> = says
        .into_iter()
        .map(|say| match say {
            // The denied query is the one thing that would change.
            Say::Client(bytes) if contains(&bytes, "drop x") => {
                Say::Client([query("select id, ssn from t"), query("select x")].concat())
            }
            other => other,
        })
        .collect();
    let rig = play(Words::default(), &says, &[usize::MAX]);
    let all = |client: bool| -> Vec<u8> {
        let side = says.iter().filter_map(|say| match say {
            Say::Client(bytes) if client => Some(bytes.clone()),
            Say::Server(bytes) if !client => Some(bytes.clone()),
            Say::Client(_) | Say::Server(_) | Say::Catalog => None,
        });
        side.flatten().collect()
    };
    assert_eq!(rig.to_server, all(true));
    assert_eq!(rig.to_client, all(false));
}

proptest! {
    #[test]
    fn any_split_gives_the_same(cuts in proptest::collection::vec(1_usize..40, 1..12), masking in any::<bool>()) {
        let rules = || if masking { Words::masking() } else { Words::default() };
        let says = conversation(masking);
        let whole = play(rules(), &says, &[usize::MAX]);
        let split = play(rules(), &says, &cuts);
        prop_assert_eq!(whole.close, Some(Close::Finish));
        prop_assert_eq!(&whole.to_server, &split.to_server);
        prop_assert_eq!(&whole.to_client, &split.to_client);
        prop_assert_eq!(gist(&whole), gist(&split));
        prop_assert!(!masking || !contains(&split.to_client, "101-02"));
    }

    #[test]
    fn random_first_bytes_reach_no_server(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut rig = Rig::new(Words::default());
        rig.client(&bytes);
        prop_assert!(rig.to_server.is_empty() || bytes.get(5) == Some(&3) || bytes.get(4..8) == Some(&[4, 210, 22, 46]));
    }

    #[test]
    fn random_bytes_of_an_open_session_never_panic(
        client in proptest::collection::vec(any::<u8>(), 0..300),
        server in proptest::collection::vec(any::<u8>(), 0..300),
        tag in proptest::sample::select(b"QPBDECFdcfHSXp".to_vec()),
        reply in proptest::sample::select(b"TDCZE123tnsIGHWdcANSV".to_vec()),
    ) {
        let mut rig = Rig::open(Words { deny_all: true, ..Words::masking() });
        rig.client(&framed(tag, &client));
        prop_assert!(client.len() < 8 || !contains(&rig.to_server, &String::from_utf8_lossy(&client)));
        rig.server(&framed(reply, &server));
        rig.client(&client);
        rig.server(&server);
        rig.event(Input::Tick);
        rig.event(Input::WorkloadClosed);
        rig.event(Input::ServerClosed);
        prop_assert!(rig.close.is_some());
    }
}
