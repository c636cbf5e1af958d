//! One method from its start to the last host, and what it cost meanwhile.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::Method;
use super::bed::{Bed, Counters};
use super::bound;
use super::crew::Crew;
use super::insider::Insider;
use super::rivals::Rival;
use super::stork::Fleet;
use super::tools::now_ms;

/// How often hosts that are not done are asked. Their own clocks tell when they were.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Whoever takes longer than so many times the bound, and as long again as it takes to find out
/// that a host is gone, is not waited for.
const LIMIT_BOUNDS: f64 = 8.0;
const LIMIT_MORE_S: f64 = 30.0;

/// What all methods deliver, and where.
#[derive(Debug)]
pub(crate) struct Task<'a> {
    pub bed: &'a Bed,
    /// The folder with the file, and the file's bytes.
    pub package: PathBuf,
    pub content: Vec<u8>,
    /// Hosts that are killed at half of the bound.
    pub victims: Vec<usize>,
    /// What the last hosts are.
    pub insiders: Vec<Insider>,
    /// What the nodes say at the end is kept.
    pub keep: bool,
}

impl Task<'_> {
    /// Hosts beside the origin that are no insiders.
    pub(crate) fn honest(&self) -> usize {
        self.bed.shape.hosts - self.insiders.len()
    }
}

/// What was measured.
#[derive(Debug)]
pub(crate) struct Figures {
    pub method: Method,
    pub len: u64,
    /// Seconds of each host that was waited for and is done.
    pub done: BTreeMap<usize, f64>,
    /// Hosts that were waited for.
    pub expected: usize,
    pub killed: Vec<usize>,
    pub insiders: Vec<Insider>,
    pub corrupt: usize,
    pub wire: Counters,
    pub cpu_s: f64,
    pub rss_kib: u64,
    pub anon_kib: u64,
    /// Share of this machine's processors that was busy meanwhile, by whatever.
    pub busy: f64,
    /// The last VM of a host that was waited for was shown the file after so many seconds.
    pub last_shown_s: Option<f64>,
}

impl Figures {
    /// Every host that was waited for has its copy.
    pub(crate) fn is_whole(&self) -> bool {
        self.done.len() == self.expected
    }
}

/// A method that is ready to begin.
enum Ready<'a> {
    Stork(Fleet<'a>),
    Rival(Rival<'a>),
}

impl Ready<'_> {
    async fn done(&self, node: usize) -> Option<u64> {
        match self {
            Self::Stork(fleet) => fleet.done(node).await,
            Self::Rival(rival) => rival.done(node),
        }
    }

    fn file(&self, node: usize) -> PathBuf {
        match self {
            Self::Stork(fleet) => fleet.file(node),
            Self::Rival(rival) => rival.file(node),
        }
    }
}

/// Ticks of all processors, and those of them in which they did nothing.
fn ticks() -> Result<(u64, u64)> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let first = stat.lines().next().unwrap_or_default();
    let all: Vec<u64> = first.split_whitespace().filter_map(|f| f.parse().ok()).take(8).collect();
    Ok((all.iter().sum(), all.iter().skip(3).take(2).sum()))
}

/// Delivers the content by one method.
pub(crate) async fn run(task: &Task<'_>, method: Method, dir: &Path) -> Result<Figures> {
    let mut crew = Crew::default();
    let content = task.package.join(super::DATA);
    let ready = match method {
        Method::Stork => Ready::Stork(Fleet::found(task, dir, &mut crew).await?),
        _ => {
            let folders = (dir, content.as_path());
            Ready::Rival(Rival::prepare(method, task.bed, folders, &mut crew).await?)
        }
    };
    let (before, (all, idle)) = (task.bed.counters()?, ticks()?);
    crew.begin();
    let start_ms = match &ready {
        Ready::Stork(fleet) => fleet.begin(&task.package).await?,
        Ready::Rival(rival) => rival.begin(&mut crew)?,
    };
    let done = watch(task, &ready, &mut crew, start_ms).await;
    crew.sample();
    let wire = task.bed.counters()?.since(&before);
    let (all_now, idle_now) = ticks()?;
    let busy = 1.0 - bound::float(idle_now - idle) / bound::float((all_now - all).max(1));
    let mut last_shown_ms = None;
    if let Ready::Stork(fleet) = &ready {
        for node in done.keys() {
            last_shown_ms = last_shown_ms.max(Some(fleet.shown(*node).await?));
        }
        if task.keep {
            fleet.keep_reports().await?;
        }
    }
    let seconds = |ms: u64| bound::float(ms.saturating_sub(start_ms)) / 1_000.0;
    let differs =
        |node: &&usize| !std::fs::read(ready.file(**node)).is_ok_and(|b| b == task.content);
    let corrupt = done.keys().filter(differs).count();
    let (rss_kib, anon_kib) = crew.peak_kib();
    Ok(Figures {
        method,
        len: task.content.len() as u64,
        expected: waited_for(task).count(),
        killed: task.victims.clone(),
        insiders: task.insiders.clone(),
        corrupt,
        wire,
        cpu_s: crew.cpu_s(),
        rss_kib,
        anon_kib,
        busy,
        last_shown_s: last_shown_ms.map(seconds),
        done: done.into_iter().map(|(node, ms)| (node, seconds(ms))).collect(),
    })
}

fn waited_for<'a>(task: &'a Task<'_>) -> impl Iterator<Item = usize> + 'a {
    let slow = task.bed.shape.slow;
    (1..=task.honest()).filter(move |h| slow != Some(*h) && !task.victims.contains(h))
}

/// Looks until every host that is waited for is done, and kills those that are to die meanwhile.
async fn watch(
    task: &Task<'_>,
    ready: &Ready<'_>,
    crew: &mut Crew,
    start_ms: u64,
) -> BTreeMap<usize, u64> {
    let bound = bound::seconds(&task.bed.shape, task.content.len() as u64);
    let ahead = Duration::from_millis(now_ms().saturating_sub(start_ms));
    let begun = Instant::now();
    let limit = Duration::from_secs_f64(bound * LIMIT_BOUNDS + LIMIT_MORE_S);
    let mut death = (!task.victims.is_empty()).then(|| Duration::from_secs_f64(bound / 2.0));
    let mut done = BTreeMap::new();
    loop {
        let at = begun.elapsed() + ahead;
        if death.is_some_and(|d| d <= at) {
            task.victims.iter().for_each(|v| crew.kill(*v));
            death = None;
        }
        for node in waited_for(task) {
            if !done.contains_key(&node)
                && let Some(ms) = ready.done(node).await
            {
                done.insert(node, ms);
            }
        }
        crew.sample();
        let left = waited_for(task).filter(|n| !done.contains_key(n));
        // Who has ended by itself will not be done any more.
        let open = left.filter(|n| !crew.ended(*n)).count();
        if (open == 0 && death.is_none()) || at > limit {
            return done;
        }
        let until = death.map_or(LOOK_EVERY, |d| d.saturating_sub(at).min(LOOK_EVERY));
        tokio::time::sleep(until).await;
    }
}
