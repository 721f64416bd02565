//! What a run came to: lines on the terminal while it goes, JSON at its end.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use crate::scenario::Scenario;

/// How a scenario ended.
pub enum Outcome {
    /// Its criterion holds.
    Passed,
    /// It does not.
    Failed(anyhow::Error),
    /// The machine lacks something.
    Skipped(String),
}

/// What a scenario counted and measured, in the order in which it first did.
pub type Figures = Vec<(&'static str, f64)>;

/// One scenario, played.
pub struct Run {
    pub scenario: &'static Scenario,
    pub outcome: Outcome,
    pub seconds: f64,
    pub figures: Figures,
    /// Where its data were; still there if it failed.
    pub folder: PathBuf,
}

/// All that were played.
pub struct Report {
    seed: u64,
    runs: Vec<Run>,
}

impl Report {
    /// Of a run with this seed.
    pub fn new(seed: u64) -> Self {
        println!("seed {seed}");
        Self { seed, runs: Vec::new() }
    }

    /// Says what begins.
    pub fn begins(scenario: &Scenario) {
        println!("== {}: {}", scenario.id, scenario.title);
    }

    /// Says how it ended.
    pub fn ended(&mut self, run: Run) {
        let figures: Vec<_> =
            run.figures.iter().map(|(name, value)| format!("{name} {}", shown(*value))).collect();
        let Run { scenario: Scenario { id, pass, .. }, seconds, .. } = &run;
        match &run.outcome {
            Outcome::Passed => println!("   passed in {seconds:.1} s: {}", figures.join(", ")),
            Outcome::Skipped(why) => println!("SKIPPED: {id}: {why}"),
            Outcome::Failed(why) => {
                println!("   FAILED after {seconds:.1} s: {}", figures.join(", "));
                println!("   must hold: {pass}\n   but: {why:#}");
                println!("   data and log: {}", run.folder.display());
                println!("   again: flowstone-faults run {id} --seed {}", self.seed);
            }
        }
        self.runs.push(run);
        let count = |wanted: fn(&Outcome) -> bool| {
            self.runs.iter().filter(|run| wanted(&run.outcome)).count()
        };
        let passed = count(|outcome| matches!(outcome, Outcome::Passed));
        let failed = count(|outcome| matches!(outcome, Outcome::Failed(_)));
        let skipped = count(|outcome| matches!(outcome, Outcome::Skipped(_)));
        println!("   so far: {passed} passed, {failed} failed, {skipped} skipped");
    }

    /// Whether nothing failed.
    pub fn all_well(&self) -> bool {
        self.runs.iter().all(|run| !matches!(run.outcome, Outcome::Failed(_)))
    }

    /// The whole report.
    pub fn json(&self) -> String {
        let runs: Vec<_> = self.runs.iter().map(json_of).collect();
        let report = json!({ "seed": self.seed, "scenarios": runs });
        format!("{report:#}\n")
    }
}

fn json_of(run: &Run) -> Value {
    let (outcome, why) = match &run.outcome {
        Outcome::Passed => ("passed", None),
        Outcome::Failed(why) => ("failed", Some(format!("{why:#}"))),
        Outcome::Skipped(why) => ("skipped", Some(why.clone())),
    };
    let figures: Map<_, _> =
        run.figures.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    json!({
        "id": run.scenario.id,
        "title": run.scenario.title,
        "fault": run.scenario.fault,
        "pass": run.scenario.pass,
        "outcome": outcome,
        "why": why,
        "seconds": run.seconds,
        "figures": figures,
    })
}

fn shown(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value}") } else { format!("{value:.2}") }
}
