//! Any bytes as a capture: lines and errors with a position, never a panic.
//!
//! Real events, whole files of them and compressed ones are changed at random and read like
//! replay and history read them. `PORTWATCH_FUZZ_SECONDS` sets the time (`cargo xtask fuzz`);
//! input that causes a panic is kept below `target/fuzz`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a panic fails the test and says where"
)]

use std::{
    fs,
    io::{BufRead, BufReader, Cursor},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use portwatch::{
    history::{History, render},
    replay::{
        again::{Line, Reader},
        diff::Change,
        lines::Lines,
        sources::Opened,
    },
    sinks::{human, markdown},
};
use portwatch_tests::{golden, say};

const OTHERS: &str = r#"{"schema":"portwatch/loss/v1","time":"2026-06-08T10:02:17Z","where":"ring","count":3}
{"schema":"portwatch/agent/v1","time":"2026-06-08T10:02:17Z","state":"started","version":"0.1.0","pid":7,"host":{"hostname":"a","kernel":"6.12","boot_id":null,"hooks":"fexit"}}
{"schema":"portwatch/outcome/v1","id":"a-1-1","time":"2026-06-08T10:02:18Z","outcome":"exited","after_ms":400,"tries":1,"protocol":"tcp","address":"0.0.0.0","port":8080,"bound":null,"process":{"pid":7,"comm":"a"},"exit":{"status":1,"signal":null},"unit":{"name":"a.service","kind":"unit","restarted":true,"result":"exit-code","restarts":1},"netns":{"inode":1,"cookie":1,"name":null,"host":true},"gaps":[]}
"#;

/// The kinds of a capture.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Plain,
    Compressed,
    Journal,
}

/// SplitMix64: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end.max(1) as u64).unwrap()
    }
}

#[test]
fn any_bytes_as_a_capture() {
    let seconds = std::env::var("PORTWATCH_FUZZ_SECONDS").map_or(5, |text| text.parse().unwrap());
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos().into();
    let mut random = Random(seed);
    let mut lines: Vec<Vec<u8>> = fs::read_dir(golden::folder())
        .unwrap()
        .map(|entry| fs::read(entry.unwrap().path()).unwrap())
        .collect();
    lines.extend(OTHERS.lines().map(|line| [line.as_bytes(), b"\n"].concat()));
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut tried = 0u64;
    while Instant::now() < end {
        let (kind, bytes) = capture(&mut random, &lines);
        if catch_unwind(AssertUnwindSafe(|| read(kind, &bytes))).is_err() {
            let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/fuzz");
            fs::create_dir_all(&kept).unwrap();
            let kept = kept.join(format!("{kind:?}-{seed}-{tried}"));
            fs::write(&kept, &bytes).unwrap();
            panic!("seed {seed}: kept as {}", kept.display());
        }
        tried += 1;
    }
    say(&format!("fuzz: {tried} captures in {seconds} s, seed {seed}"));
}

fn capture(random: &mut Random, lines: &[Vec<u8>]) -> (Kind, Vec<u8>) {
    let mut bytes = Vec::new();
    for _ in 0..=random.below(3) {
        bytes.extend(&lines[random.below(lines.len())]);
    }
    let kind = [Kind::Plain, Kind::Compressed, Kind::Journal][random.below(3)];
    if let Kind::Journal = kind {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        bytes = serde_json::json!({"PORTWATCH_EVENT": text.trim_end()}).to_string().into_bytes();
    }
    // In the text as well, not only in its compressed form.
    if random.below(4) > 0 {
        change(random, &mut bytes);
    }
    if let Kind::Compressed = kind {
        bytes = zstd::encode_all(&bytes[..], 1).unwrap();
        if random.below(2) > 0 {
            change(random, &mut bytes);
        }
    }
    (kind, bytes)
}

fn change(random: &mut Random, bytes: &mut Vec<u8>) {
    const TOKENS: [&[u8]; 12] = [
        b"null",
        b"-1",
        b"18446744073709551616",
        b"1e999",
        b"\"\"",
        b"{}",
        b"[",
        b"\\ud800",
        b"\xff\xfe",
        b"\n",
        b"\"9999-12-31T23:59:60Z\"",
        b"\"::ffff:1.2.3.4\"",
    ];
    for _ in 0..=random.below(6) {
        let at = random.below(bytes.len());
        match random.below(6) {
            0 => bytes.truncate(at),
            1 if !bytes.is_empty() => bytes[at] = random.next() as u8,
            2 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            3 => drop(bytes.splice(at..at, TOKENS[random.below(TOKENS.len())].iter().copied())),
            4 => {
                // A value becomes another: from one colon to the next comma.
                let from = bytes[at..].iter().position(|&byte| byte == b':').map(|n| at + n + 1);
                let Some(from) = from else { continue };
                let to = bytes[from..].iter().position(|&b| b == b',' || b == b'}');
                let to = to.map_or(bytes.len(), |n| from + n);
                let token = TOKENS[random.below(TOKENS.len())].iter().copied();
                drop(bytes.splice(from..to, token));
            }
            _ => {
                let to = (at + random.below(200)).min(bytes.len());
                let part: Vec<u8> = bytes[at..to].to_vec();
                let into = random.below(bytes.len());
                drop(bytes.splice(into..into, part));
            }
        }
    }
}

/// As replay and history do.
fn read(kind: Kind, bytes: &[u8]) {
    let fed = bytes.iter().filter(|&&byte| byte == b'\n').count() as u64 + 1;
    let cursor = Cursor::new(bytes.to_vec());
    let source: Box<dyn BufRead> = match kind {
        Kind::Plain | Kind::Journal => Box::new(cursor),
        Kind::Compressed => match zstd::Decoder::new(cursor) {
            Ok(decoder) => Box::new(BufReader::new(decoder)),
            Err(_) => return,
        },
    };
    let journal = matches!(kind, Kind::Journal);
    let mut lines = Lines::of(Opened { name: "capture".to_owned(), bytes: source, journal });
    let mut reader = Reader::default();
    let mut history = History::default();
    while let Some(line) = lines.advance() {
        let line = match line {
            Ok(line) => line,
            Err(bad) => {
                assert!(bad.line > 0 && bad.name == "capture");
                assert!(bad.line <= fed || matches!(kind, Kind::Compressed), "{bad}");
                continue;
            }
        };
        let Ok(Line::Event(recorded)) = reader.read(line) else { continue };
        let Ok(again) = recorded.again() else { continue };
        let mut written = Vec::new();
        again.write(&mut written).unwrap();
        assert_eq!(written.iter().filter(|&&byte| byte == b'\n').count(), 1, "one line");
        history.add(&again.id, again.evidence, &again.diagnosis, again.count);
        if let Ok(event) = again.recorded() {
            Change::between(&event, &again.diagnosis).unwrap();
        }
        let event = again.event().unwrap();
        human::block(&event, Some(80));
        markdown::note(&event);
    }
    let report = history.report();
    render::table(&report);
    render::markdown(&report);
}
