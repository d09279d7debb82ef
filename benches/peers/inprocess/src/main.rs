//! What an evaluation costs in process: Portcullis and regorus (Rego in Rust) on the same ordered list.
//!
//! `portcullis-peers DIRECTORY COMPARED ROUNDS SIZE…`, which `../run` starts on the files that `../measure.py` writes.
//! Prints a line for each list and contestant: its ranges, name, answers compared, differences, the microseconds an
//! evaluation took in each round, and their ratios to Portcullis' in the same round; tabs between.
//!
//! Invariant: no time is taken before all give the right answers; contestants take turns.
//! Not here: what is asked over the network (`../systems.py`), the lists (`../lists.py`).

mod portcullis_list;
mod rego;

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

/// How long a contestant evaluates in a round.
const ROUND: Duration = Duration::from_millis(300);

/// An address as it comes over the wire, and whether it has to be allowed.
struct Question {
    address: String,
    allowed: bool,
}

/// What the files say.
struct List {
    /// Ranges in order, and whether each allows.
    rules: Vec<(String, bool)>,
    /// What they deny after all.
    denied: Vec<String>,
    questions: Vec<Question>,
}

/// Evaluates the question at a place.
type Evaluate = Box<dyn FnMut(usize) -> Result<bool>>;

struct Contestant {
    name: &'static str,
    evaluate: Evaluate,
    /// The question that comes next.
    next: usize,
}

impl Contestant {
    fn new(name: &'static str, evaluate: impl FnMut(usize) -> Result<bool> + 'static) -> Self {
        Self { name, evaluate: Box::new(evaluate), next: 0 }
    }

    /// How long so many evaluations take, going on where the last ones ended.
    fn time(&mut self, evaluations: usize, questions: usize) -> Result<Duration> {
        let begun = Instant::now();
        let mut allowed = 0_usize;
        for _ in 0..evaluations {
            allowed += usize::from((self.evaluate)(self.next)?);
            self.next = if self.next + 1 == questions { 0 } else { self.next + 1 };
        }
        black_box(allowed);
        Ok(begun.elapsed())
    }

    /// How many evaluations fill a round.
    fn calibrate(&mut self, questions: usize) -> Result<usize> {
        let mut evaluations = 1;
        loop {
            let took = self.time(evaluations, questions)?;
            if took > ROUND / 8 {
                #[expect(
                    clippy::cast_precision_loss,
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "some more or less do not matter"
                )]
                let evaluations = (evaluations as f64 * ROUND.div_duration_f64(took)).ceil() as usize;
                return Ok(evaluations);
            }
            evaluations *= 2;
        }
    }
}

/// The lines of a file, each after `allow` or `deny`.
fn read_judged(path: &Path) -> Result<Vec<(String, bool)>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let judged = text.lines().map(|line| {
        let (action, rest) = line.split_once(' ').with_context(|| format!("`{line}` has no action"))?;
        Ok((rest.to_owned(), action == "allow"))
    });
    judged.collect()
}

impl List {
    fn read(directory: &Path, size: usize) -> Result<Self> {
        let denied = std::fs::read_to_string(directory.join(format!("denied-{size}")))?;
        let asked = read_judged(&directory.join(format!("asked-{size}")))?;
        Ok(Self {
            rules: read_judged(&directory.join(format!("rules-{size}")))?,
            denied: denied.lines().map(str::to_owned).collect(),
            questions: asked.into_iter().map(|(address, allowed)| Question { address, allowed }).collect(),
        })
    }
}

/// How many of the answers are wrong.
fn differences(contestant: &mut Contestant, questions: &[Question]) -> Result<usize> {
    let mut wrong = 0;
    for (at, question) in questions.iter().enumerate() {
        wrong += usize::from((contestant.evaluate)(at)? != question.allowed);
    }
    Ok(wrong)
}

fn joined(values: impl Iterator<Item = f64>) -> String {
    values.map(|value| format!("{value}")).collect::<Vec<_>>().join(" ")
}

fn measure(directory: &Path, size: usize, compared: usize, rounds: usize) -> Result<()> {
    let list = List::read(directory, size)?;
    let sample = list.questions.get(..compared).context("too few questions")?;
    let mut contestants = vec![portcullis_list::contestant(&list)?];
    contestants.extend(rego::contestants(&list)?);
    let mut found = Vec::new();
    for contestant in &mut contestants {
        found.push(differences(contestant, sample)?);
    }
    ensure!(found.iter().all(|wrong| *wrong == 0), "wrong answers with {size} ranges: {found:?}");
    let mut evaluations = Vec::new();
    for contestant in &mut contestants {
        evaluations.push(contestant.calibrate(list.questions.len())?);
    }
    let mut times = vec![Vec::new(); contestants.len()];
    for _ in 0..rounds {
        for ((contestant, evaluations), times) in contestants.iter_mut().zip(&evaluations).zip(&mut times) {
            #[expect(clippy::cast_precision_loss, reason = "far from 2^53")]
            times.push(contestant.time(*evaluations, list.questions.len())?.as_secs_f64() * 1e6 / *evaluations as f64);
        }
    }
    let ours = times.first().context("nobody was measured")?;
    for ((contestant, times), wrong) in contestants.iter().zip(&times).zip(found) {
        let ratios = joined(times.iter().zip(ours).map(|(time, ours)| time / ours));
        let times = joined(times.iter().copied());
        println!("{size}\t{}\t{compared}\t{wrong}\t{times}\t{ratios}", contestant.name);
    }
    Ok(())
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [directory, compared, rounds, sizes @ ..] = arguments.as_slice() else {
        anyhow::bail!("usage: portcullis-peers DIRECTORY COMPARED ROUNDS SIZE…");
    };
    for size in sizes {
        measure(Path::new(directory), size.parse()?, compared.parse()?, rounds.parse()?)?;
    }
    Ok(())
}
