//! What a start does where a part of a data directory is older than the rest, missing, or another directory's.
//!
//! Invariant: a start either refuses and leaves every file as it is, or serves everything that was acknowledged. The table
//! here is the one in `docs/operate.md`.
//! Not here: crashes (`crash_*`, `witnesses_killed`), damage within a file (`store_journal_files`, `audit_tamper`), and the small files
//! (`witnesses_files`).

use std::path::Path;

use portcullis::audit::filter::RecordFilter;
use portcullis::audit::record::RecordType;
use portcullis::config::Config;
use portcullis::policy::decision::Decision;
use portcullis::policy::rule::ConnectionType;
use portcullis::server;

use crate::audit_engine::{DEFAULT, check};
use crate::witnesses_history::{ACKNOWLEDGED, CHANGES, Histories, SESSIONS, contents, copy, remove};

/// A part of a data directory that can be exchanged by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Journal,
    AuditLog,
    Sessions,
    Sled,
    Checkpoints,
    /// Both of them.
    WholeAuditLog,
    Key,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Harm {
    CutBack,
    Missing,
    Others,
}

use Harm::{CutBack, Missing, Others};
use Part::{AuditLog, Checkpoints, Journal, Key, Sessions, Sled, WholeAuditLog};

/// What a start does about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Does {
    /// Refuses, with this in its message.
    Refuse(&'static str),
    Serve,
}

use Does::{Refuse, Serve};

/// The parts with their names in the table, and what a start does and why, for each harm.
pub(crate) type Row = (Part, &'static str, [(Does, &'static str); 3]);

pub(crate) const TABLE: [Row; 7] = [
    (
        Journal,
        "policy journal and snapshots, `policy/`",
        [
            (Refuse("the audit log has seen record"), "the audit log and sled have seen more"),
            (Refuse("the policy journal in"), "`BEGUN` says that there was one"),
            (Refuse("not the change that the audit log has there"), "its changes are not those on the record"),
        ],
    ),
    (
        AuditLog,
        "audit log, `audit/` without `checkpoints`",
        [
            (Refuse("but the newest checkpoint covers"), "the checkpoints cover more"),
            (Refuse("the audit log in"), "`BEGUN` says that there was one"),
            (Refuse("newest checkpoint"), "it is not what the checkpoints cover"),
        ],
    ),
    (
        Sessions,
        "saved sessions, `sessions/`",
        [
            (Serve, "the log tells the rest; leases are as last saved"),
            (Serve, "made again from the audit log, with leases as first given; the log says so"),
            (Refuse("the saved sessions"), "they were saved beside another log"),
        ],
    ),
    (
        Sled,
        "copy of the policy and match counts, `sled/`",
        [
            (Serve, "brought up to date; match counts are the older ones"),
            (Serve, "made again; match counts are lost; the log says so"),
            (Refuse("the database in `sled` has seen record"), "it has seen more (where it has not, it is made again)"),
        ],
    ),
    (
        Checkpoints,
        "`audit/checkpoints`",
        [
            (Refuse("checkpoints are missing"), "the saved sessions have seen a newer one"),
            (Refuse("the checkpoints of the audit log"), "`BEGUN` says that there were some"),
            (Refuse("key"), "they are signed by another key"),
        ],
    ),
    (
        WholeAuditLog,
        "audit log with its checkpoints, `audit/`",
        [
            (Refuse("the audit log"), "the saved sessions have seen more, and the policy has changes without a record"),
            (Refuse("the audit log in"), "`BEGUN` says that there was one"),
            (Refuse("key"), "it is signed by another key"),
        ],
    ),
    (
        Key,
        "signing key",
        [
            (Serve, "a key does not age"),
            (Refuse("key"), "the log is signed by it"),
            (Refuse("key"), "the checkpoints are signed by another key"),
        ],
    ),
];

/// Where the only witness of a loss is harmed as well: what was signed in between is lost unnoticed, and no record is.
const UNNOTICED: [[(Part, Harm); 2]; 2] =
    [[(Sessions, CutBack), (Checkpoints, CutBack)], [(Sessions, Missing), (Checkpoints, CutBack)]];

pub(crate) const HARMS: [Harm; 3] = [CutBack, Missing, Others];

fn does(part: Part, harm: Harm) -> Does {
    let (_, _, cells) = TABLE.iter().find(|(named, ..)| *named == part).unwrap();
    cells[HARMS.iter().position(|named| *named == harm).unwrap()].0
}

impl Part {
    /// Copies it from one data directory to another that does not have it.
    fn copy(self, from: &Path, to: &Path) {
        for name in self.names(from) {
            copy(&from.join(&name), &to.join(&name));
        }
    }

    /// Its files and directories in a data directory.
    fn names(self, directory: &Path) -> Vec<String> {
        let names: &[&str] = match self {
            Journal => &["policy"],
            Sessions => &["sessions"],
            Sled => &["sled"],
            Checkpoints => &["audit/checkpoints"],
            WholeAuditLog => &["audit"],
            Key => &["audit.key", "audit.pub"],
            AuditLog => {
                let files = std::fs::read_dir(directory.join("audit")).unwrap();
                let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
                return names.filter(|name| name != "checkpoints").map(|name| format!("audit/{name}")).collect();
            }
        };
        names.iter().map(|name| (*name).to_owned()).collect()
    }
}

impl Harm {
    pub(crate) fn befall(self, part: Part, histories: &Histories, directory: &Path) {
        for name in part.names(directory) {
            remove(&directory.join(name));
        }
        match self {
            CutBack => part.copy(&histories.earlier, directory),
            Missing => {}
            Others => part.copy(&histories.others, directory),
        }
    }
}

/// Starts on a directory. Its answer is the message of a refusal, which has left every file as it was; a start that
/// serves has everything that was acknowledged; of Checks only where the log is whole.
pub(crate) async fn start(directory: &Path, name: &str, log_is_whole: bool) -> Result<(), String> {
    let parts = ["policy", "audit", "sessions"];
    let before: Vec<_> = parts.iter().map(|part| contents(&directory.join(part))).collect();
    let config = Config::for_data_dir(directory);
    let engine = match server::open(&config) {
        Ok(engine) => engine,
        Err(error) => {
            let after: Vec<_> = parts.iter().map(|part| contents(&directory.join(part))).collect();
            assert!(before == after, "{name}: a start that is refused changed a file");
            return Err(format!("{error:#}"));
        }
    };
    for range in ACKNOWLEDGED {
        let answer = check(&engine, "ada@example.com", range, ConnectionType::Preview, DEFAULT).await.unwrap();
        assert_eq!(answer.reason.decision(), Decision::Deny, "{name}: {range}");
    }
    let filter = RecordFilter { types: vec![RecordType::PolicyChanged], ..RecordFilter::default() };
    assert_eq!(engine.audit().count(&filter).unwrap(), CHANGES, "{name}");
    assert_eq!(engine.audit().verify(None, &mut |_, _| true).unwrap().faults, [], "{name}");
    if log_is_whole {
        assert_eq!(engine.sessions().len(), SESSIONS, "{name}");
    }
    engine.close();
    Ok(())
}

/// Starts on a copy of the newest state in which harm has come to parts.
async fn start_harmed(histories: &Histories, harmed: &[(Part, Harm)]) -> Result<(), String> {
    let directory = histories.copy_of_the_newest();
    for (part, harm) in harmed {
        harm.befall(*part, histories, directory.path());
    }
    start(directory.path(), &format!("{harmed:?}"), true).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_part_that_is_older_missing_or_anothers_is_noticed_as_the_table_says() {
    let histories = Histories::write().await;
    start_harmed(&histories, &[]).await.unwrap();
    for (part, _, cells) in TABLE {
        for (harm, (does, _)) in HARMS.into_iter().zip(cells) {
            match (does, start_harmed(&histories, &[(part, harm)]).await) {
                (Serve, Ok(())) => {}
                (Refuse(fragment), Err(message)) if message.contains(fragment) => {}
                (_, outcome) => panic!("{part:?} {harm:?}: {does:?} expected: {outcome:?}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_parts_that_are_older_missing_or_anothers_do_not_hide_one_another() {
    let histories = Histories::write().await;
    let parts: Vec<Part> = TABLE.iter().map(|(part, ..)| *part).collect();
    let mut pairs = Vec::new();
    for (index, first) in parts.iter().enumerate() {
        for second in &parts[index + 1..] {
            for (one, other) in HARMS.iter().flat_map(|one| HARMS.iter().map(move |other| (*one, *other))) {
                // A part of a part is not a pair.
                if !(matches!(first, AuditLog | Checkpoints) && *second == WholeAuditLog) {
                    pairs.push([(*first, one), (*second, other)]);
                }
            }
        }
    }
    assert_eq!(pairs.len(), 171);
    for harmed in &pairs {
        let serves = harmed.iter().all(|(part, harm)| does(*part, *harm) == Serve) || UNNOTICED.contains(harmed);
        match start_harmed(&histories, harmed).await {
            Ok(()) => assert!(serves, "{harmed:?} must be refused"),
            Err(message) => {
                assert!(!serves, "{harmed:?} must be served: {message}");
                let advises = ["restore", "put", "give"].iter().any(|advice| message.contains(advice));
                assert!(advises, "{harmed:?}: {message}");
            }
        }
    }
}

/// No change of policy tells of Checks: where the saved sessions are harmed too, the match counts do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_without_checks_that_are_counted_is_refused() {
    let histories = Histories::write().await;
    let (later, counted) = (histories.after_checks().await, "but the match counts in `sled` include record");
    for (sessions, sled, does) in [
        (CutBack, None, Refuse(counted)),
        (Missing, None, Refuse(counted)),
        // Then nothing is left that knows.
        (CutBack, Some(CutBack), Serve),
        (Missing, Some(Missing), Serve),
    ] {
        let directory = tempfile::tempdir().unwrap();
        copy(later.path(), directory.path());
        // To the state before the Checks.
        let before = |part: Part, harm| {
            part.names(directory.path()).iter().for_each(|name| remove(&directory.path().join(name)));
            if harm == CutBack {
                part.copy(&histories.newest, directory.path());
            }
        };
        before(WholeAuditLog, CutBack);
        before(Sessions, sessions);
        if let Some(harm) = sled {
            before(Sled, harm);
        }
        let name = format!("{sessions:?} {sled:?}");
        // Twice: a start that is refused leaves the witness.
        for _ in 0..2 {
            match (does, start(directory.path(), &name, true).await) {
                (Serve, Ok(())) => {}
                (Refuse(fragment), Err(message)) if message.contains(fragment) => {}
                (_, outcome) => panic!("{name}: {does:?} expected: {outcome:?}"),
            }
        }
    }
    start(later.path(), "all of it", true).await.unwrap();
}

/// The first changes of a new directory are not written where sled has seen a journal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_only_sled_is_left_the_policy_journal_stays_empty() {
    let histories = Histories::write().await;
    let directory = histories.copy_of_the_newest();
    for name in ["policy", "audit", "sessions", "BEGUN"] {
        remove(&directory.path().join(name));
    }
    for _ in 0..2 {
        let message = server::open(&Config::for_data_dir(directory.path())).err().expect("refused");
        let message = format!("{message:#}");
        assert!(message.contains("the policy journal ends at record 0, but the database in `sled`"), "{message}");
    }
}

#[test]
fn the_table_is_the_documented_one() {
    let mut text = "| | an older copy of it | missing | another directory's |\n|---|---|---|---|\n".to_owned();
    for (_, name, cells) in TABLE {
        let cells = cells.map(|(does, why)| match does {
            Refuse(_) => format!("refused: {why}"),
            Serve => format!("starts: {why}"),
        });
        text.extend(["| ", name, " | ", &cells.join(" | "), " |\n"]);
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operate.md");
    let document = std::fs::read_to_string(path).unwrap();
    assert!(document.contains(&text), "docs/operate.md has to hold this table:\n{text}");
}
