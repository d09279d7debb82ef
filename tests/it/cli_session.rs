//! The session of an administrator in `docs/administrator.md`: every task of both products, with what each command says.
//!
//! Invariant: a command under which nothing is shown prints nothing; a command ends with the exit status 0 unless the
//! session shows another. The number of commands in a heading is that of its commands.
//! Not here: the sessions with grpcurl (`.ci/walkthrough`), which compares in the same way.
//!
//! `PORTCULLIS_WRITE_DOCS=1` writes what came into the document, with placeholders for what differs from run to run.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::harness::Service;

/// What ends the output of a command.
const MARK: &str = "@@@ ended with ";

/// Text that stands for another, which has these letters only.
type Placeholder = (&'static str, fn(char) -> bool);

/// What stands for text that differs from run to run.
const PLACEHOLDERS: &[Placeholder] = &[
    ("<id>", |letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-'),
    ("<time>", |letter| letter.is_ascii_digit() || "-T:.Z ".contains(letter)),
    ("<number>", |letter| letter.is_ascii_digit()),
];

/// A command with the output that is shown.
struct Step {
    command: String,
    shown: Vec<String>,
}

fn document() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/administrator.md")
}

/// The commands of a document.
fn steps(text: &str) -> Vec<Step> {
    let (mut steps, mut inside) = (Vec::<Step>::new(), false);
    for line in text.lines() {
        match line {
            "```console" => inside = true,
            "```" => inside = false,
            _ if !inside => {}
            _ => match (line.strip_prefix("$ "), steps.last_mut()) {
                (Some(command), _) => steps.push(Step { command: command.to_owned(), shown: Vec::new() }),
                (None, Some(step)) => step.shown.push(line.to_owned()),
                (None, None) => panic!("output before the first command: {line}"),
            },
        }
    }
    steps
}

/// Runs the commands in one shell. The output and the exit status of each.
async fn run(service: &Service, steps: &[Step]) -> Vec<(String, String)> {
    let folder = tempfile::tempdir().unwrap();
    let binary = env!("CARGO_BIN_EXE_portcullis");
    // On a terminal, which these commands are for, they print tables.
    let mut script = format!(
        "portcullis() {{ case \" $* \" in *\" --output \"*) {binary} \"$@\";; *) {binary} \"$@\" --output table;; esac; }}\n"
    );
    for step in steps {
        let told = format!("{}\nstatus=$?; echo; echo '{MARK}'$status; (exit $status)\n", step.command);
        script.push_str(&told);
    }
    let mut bash = Command::new("bash");
    bash.args(["-c", &format!("exec 2>&1\n{script}")]).current_dir(folder.path()).stdin(Stdio::null());
    bash.env("PORTCULLIS_SERVER", service.address().to_string()).env("TZ", "UTC");
    let output = tokio::task::spawn_blocking(move || bash.output().unwrap()).await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (mut came, mut rest) = (Vec::new(), text.as_str());
    while let Some((printed, after)) = rest.split_once(MARK) {
        let (status, after) = after.split_once('\n').unwrap();
        came.push((printed.strip_suffix('\n').unwrap().to_owned(), status.to_owned()));
        rest = after;
    }
    came
}

/// Whether a line is what is shown. A run of spaces counts as one, for columns are as wide as what is in them.
fn is_like(shown: &str, came: &str) -> bool {
    let spaces = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    matches(&spaces(shown), &spaces(came))
}

fn matches(shown: &str, came: &str) -> bool {
    let first = PLACEHOLDERS.iter().filter_map(|of| shown.find(of.0).map(|at| (at, of))).min_by_key(|(at, _)| *at);
    let Some((at, (placeholder, holds))) = first else { return shown == came };
    let (before, after) = shown.split_at(at);
    let after = after.strip_prefix(placeholder).unwrap();
    let Some(rest) = came.strip_prefix(before) else { return false };
    let longest = rest.find(|letter| !holds(letter)).unwrap_or(rest.len());
    (1..=longest).rev().any(|end| matches(after, rest.split_at(end).1))
}

/// A line with placeholders for times and made-up ids.
fn masked(line: &str) -> String {
    let is_time = |word: &str| {
        let shape: String = word.chars().map(|letter| if letter.is_ascii_digit() { '0' } else { letter }).collect();
        let is_present = !word.starts_with("2099") && !word.starts_with("2020");
        is_present && ["0000-00-00T00:00:00Z", "0000-00-00", "00:00:00"].contains(&shape.as_str())
    };
    let is_made_up =
        |part: &str| part.len() >= 16 && part.chars().all(|letter| letter.is_ascii_hexdigit() || letter == '-');
    // The lineage of an etag.
    let etag = |word: &str| {
        let (head, lineage) = word.rsplit_once('-')?;
        let (kind, revision) = head.split_once('-')?;
        let is_one = ["rule", "rules", "group", "groups", "node", "nodes", "policy"].contains(&kind)
            && revision.chars().all(|letter| letter.is_ascii_digit())
            && lineage.len() == 8
            && lineage.chars().all(|letter| letter.is_ascii_hexdigit());
        is_one.then(|| format!("{head}-<id>"))
    };
    let parts: Vec<&str> = line.split_inclusive(|letter: char| " (),/;".contains(letter)).collect();
    let words = parts.iter().enumerate().map(|(at, word)| {
        let bare = word.trim_end_matches(|letter: char| " (),/;".contains(letter));
        let tail = word.split_at(bare.len()).1;
        let is_cell = tail == " " && parts.get(at + 1) == Some(&" ");
        match bare {
            _ if is_time(bare) && is_cell => format!("{:width$}{tail}", "<time>", width = bare.len()),
            _ if is_time(bare) => format!("<time>{tail}"),
            _ if let Some(etag) = etag(bare) => format!("{etag}{tail}"),
            _ if is_made_up(bare) => format!("<id>{tail}"),
            _ if bare.strip_prefix("rule-").is_some_and(is_made_up) => format!("rule-<id>{tail}"),
            _ => (*word).to_owned(),
        }
    });
    words.collect::<String>().trim_end().replace("<time> <time>", "<time>")
}

/// The document with other outputs.
fn rewritten(text: &str, outputs: &[Vec<String>]) -> String {
    let (mut lines, mut inside, mut outputs) = (Vec::new(), false, outputs.iter());
    for line in text.lines() {
        inside = match line {
            "```console" => true,
            "```" => false,
            _ => inside,
        };
        if !inside || line == "```console" {
            lines.push(line.to_owned());
        } else if line.starts_with("$ ") {
            lines.push(line.to_owned());
            lines.extend(outputs.next().unwrap().iter().cloned());
        }
    }
    lines.join("\n") + "\n"
}

#[tokio::test]
async fn the_session_of_an_administrator_says_what_is_shown() {
    let text = std::fs::read_to_string(document()).unwrap();
    let steps = steps(&text);
    let service = Service::start().await;
    let address = service.address().to_string();
    let came = run(&service, &steps).await;
    service.stop().await;
    assert_eq!(came.len(), steps.len(), "the session did not come to its end");
    let (mut faults, mut right) = (Vec::new(), Vec::new());
    for (step, (output, status)) in steps.iter().zip(&came) {
        let output = output.replace(&address, "127.0.0.1:7070");
        let output: Vec<&str> = output.trim_matches('\n').lines().collect();
        let same = step.shown.len() == output.len()
            && step.shown.iter().zip(&output).all(|(shown, came)| is_like(shown, came));
        if !same || status != "0" {
            faults.push(format!("$ {}\n{}\nexit status {status}", step.command, output.join("\n")));
        }
        let masked = output.iter().map(|line| masked(line)).collect();
        right.push(if same { step.shown.clone() } else { masked });
    }
    if std::env::var_os("PORTCULLIS_WRITE_DOCS").is_some() {
        std::fs::write(document(), rewritten(&text, &right)).unwrap();
    } else {
        assert!(faults.is_empty(), "not as shown:\n\n{}", faults.join("\n\n"));
    }
}

#[test]
fn the_number_of_commands_of_each_task_is_that_in_its_heading() {
    let text = std::fs::read_to_string(document()).unwrap();
    let tasks: Vec<&str> = text.split("\n### ").skip(1).collect();
    assert!(tasks.len() >= 25, "{} tasks", tasks.len());
    for task in tasks {
        let heading = task.lines().next().unwrap();
        let count = task.lines().filter(|line| line.starts_with("$ portcullis ")).count();
        let expected = if count == 1 { "(1 command)".to_owned() } else { format!("({count} commands)") };
        assert!(heading.ends_with(&expected), "{heading}: {expected}");
    }
}

/// The hazard: a placeholder that takes everything hides what the commands say.
#[test]
fn placeholders_stand_for_what_they_say_and_nothing_else() {
    for (shown, came, expected) in [
        ("at <time>", "at 2026-01-01T00:00:00Z", true),
        ("at <time>", "at noon", false),
        ("sessions/<id>", "sessions/0a-1", true),
        ("sessions/<id>", "sessions/", false),
        ("a <number>  b", "a 12 b", true),
        ("a", "b", false),
    ] {
        assert_eq!(is_like(shown, came), expected, "{shown} and {came}");
    }
    let line = "undone at 2026-01-01 00:00:00 local time (2026-01-01T00:00:00Z), until 2099-12-31T18:00:00Z";
    assert_eq!(masked(line), "undone at <time> local time (<time>), until 2099-12-31T18:00:00Z");
    assert_eq!(masked("etag  rule-7-1f3a9c04"), "etag  rule-7-<id>");
}
