//! What a test leaves behind, in Jepsen's shape: `history.edn`, `results.edn`, `timeline.html`, plots.
//!
//! `test.edn` says what was asked for, and stands there before the first event. With it and the history, which
//! [`Journal`](crate::journal::Journal) writes as it grows, all else can be made again.

mod chart;
mod edn;
mod plot;
mod timeline;

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::Context;

use crate::check::fault::Faults;
use crate::check::operation;
use crate::edn::Edn;
use crate::history::{Event, Seal};
use crate::test::{Results, Test};

/// The longest line of a history that is read: a read of 100,000 routes fits.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// Verdicts of the run itself.
pub(crate) const FINAL: &str = "final";
pub(crate) const NODES: &str = "nodes";
pub(crate) const PHASES: &str = "phases";
pub(crate) const MEMBERSHIP: &str = "membership";
pub(crate) const INJECTABLE: &str = "injectable";

/// The history's file.
pub(crate) const HISTORY: &str = "history.edn";

/// Says what is asked for, before anything happens.
pub(crate) fn write_test(directory: &Path, test: &Test) -> anyhow::Result<()> {
    write_line(&directory.join("test.edn"), &edn::of_test(test))
}

/// Writes what came of a test into its directory.
pub(crate) fn write_results(directory: &Path, test: &Test, results: &Results) -> anyhow::Result<()> {
    write_line(&directory.join("results.edn"), &edn::of_results(test, results))
}

/// The same with the pictures of its history.
pub(crate) fn write(directory: &Path, test: &Test, history: &[Event], results: &Results) -> anyhow::Result<()> {
    write_results(directory, test, results)?;
    let (operations, _) = operation::pair(history);
    let faults = Faults::gather(&operations);
    let picture = |name: &str, text: String| {
        let path = directory.join(name);
        std::fs::write(&path, text).with_context(|| format!("{}: write", path.display()))
    };
    picture("timeline.html", timeline::draw(test, results, &operations, &faults))?;
    picture("latency.svg", plot::latency(test, &operations, &faults))?;
    picture("rate.svg", plot::rate(test, &operations, &faults))
}

/// One line of the history.
pub(crate) fn line(event: &Event) -> Edn {
    edn::of_event(event)
}

/// What the end says of the events before it: their number, and a checksum over their lines as the journal writes them. It is made anew of
/// what is judged, and a line that reads the same may look otherwise.
pub(crate) fn seal(before: &[Event]) -> Seal {
    let crc32c = before.iter().fold(0, |crc, event| crc32c::crc32c_append(crc, format!("{}\n", line(event)).as_bytes()));
    Seal { events: before.len() as u64, crc32c }
}

fn write_line(path: &Path, line: &Edn) -> anyhow::Result<()> {
    std::fs::write(path, format!("{line}\n")).with_context(|| format!("{}: write", path.display()))
}

/// Reads a test and its history back from a `history.edn`, with the `test.edn` that stands beside it.
pub(crate) fn read(history: &Path) -> anyhow::Result<(Test, Vec<Event>)> {
    let beside = history.with_file_name("test.edn");
    let text =
        std::fs::read_to_string(&beside).with_context(|| format!("{}: what the test was stands there", beside.display()))?;
    let test = crate::edn::parse(&text).with_context(|| beside.display().to_string())?;
    let test = edn::test(&test).with_context(|| beside.display().to_string())?;
    let file = File::open(history).with_context(|| history.display().to_string())?;
    Ok((test, read_events(BufReader::new(file)).with_context(|| history.display().to_string())?))
}

fn read_events(mut file: impl BufRead) -> anyhow::Result<Vec<Event>> {
    let mut events = Vec::new();
    let mut line = String::new();
    for number in 1.. {
        line.clear();
        let read =
            std::io::Read::take(&mut file, LINE_BYTES_MAX).read_line(&mut line).with_context(|| format!("line {number}"))?;
        if read == 0 {
            break;
        }
        if line.trim().is_empty() {
            continue;
        }
        let event = crate::edn::parse(line.trim_end());
        // The suite was killed while it wrote: what was written whole is a history that was cut short.
        if event.is_err() && !line.ends_with('\n') && (line.len() as u64) < LINE_BYTES_MAX {
            break;
        }
        let event = event.with_context(|| format!("line {number}"))?;
        events.push(edn::event(&event).with_context(|| format!("line {number}"))?);
    }
    Ok(events)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::story::{self, Story, poll, register, request};
    use crate::history::{Kind, Op};
    use crate::test::{Outcome, Verdict};

    fn story() -> Story {
        let mut told = Story::new();
        for revision in 1..200 {
            told.ok(0, story::write(&[(1, revision)], revision)).run(
                1,
                2,
                Kind::Ok,
                story::read(1, revision, Some((revision, revision))),
            );
            if revision == 80 {
                told.fault("kill-leader", &[1, 2]).run(2, 2, Kind::Info, story::write(&[(2, 7)], 0)).wait(300);
            }
            if revision == 120 {
                told.heal("kill-leader", &[1, 2]).run(3, 1, Kind::Fail, request(1, 1, 1)).run(
                    3,
                    1,
                    Kind::Ok,
                    poll(3, "<&\">", 2),
                );
            }
        }
        told.over();
        told
    }

    /// A test's directory as the run leaves it.
    fn write_all(directory: &Path, story: &Story) {
        write_test(directory, &register()).unwrap();
        let text: String = story.events.iter().map(|event| format!("{}\n", line(event))).collect();
        std::fs::write(directory.join(HISTORY), text).unwrap();
    }

    #[test]
    fn a_test_comes_back_from_its_directory() {
        let (test, story) = (register(), story());
        let directory = tempfile::tempdir().unwrap();
        let results = crate::check::judge(&test, &story.events);
        write_all(directory.path(), &story);
        write(directory.path(), &test, &story.events, &results).unwrap();
        let (test_read, history) = read_back(directory.path());
        assert_eq!((test_read, history), (test.clone(), story.events));
        let results = std::fs::read_to_string(directory.path().join("results.edn")).unwrap();
        let results = crate::edn::parse(&results).unwrap();
        assert_eq!(results.get("seed"), Some(&Edn::from(test.seed)));
        assert_eq!(results.get("replay"), Some(&Edn::from(test.command.as_str())));
        assert!(results.get("verdicts").and_then(|verdicts| verdicts.get("I2")?.get("valid?")).is_some());
    }

    #[test]
    fn what_the_run_itself_judged_is_in_the_history() {
        let directory = tempfile::tempdir().unwrap();
        let own = [(FINAL, Outcome::Pass), (NODES, Outcome::Fail), (PHASES, Outcome::Unknown), (MEMBERSHIP, Outcome::NotTested)];
        let own = own.map(|(name, outcome)| Verdict { name: name.to_owned(), outcome, detail: format!("of {name}") });
        let mut story = story();
        story.events.pop();
        story.over_with(own.to_vec(), Vec::new());
        write_all(directory.path(), &story);
        let (test, history) = read_back(directory.path());
        let verdicts = crate::check::judge(&test, &history).verdicts;
        assert!(own.iter().all(|own| verdicts.contains(own)), "{verdicts:?}");
    }

    #[test]
    fn a_history_that_was_cut_short_is_read_and_never_passes() {
        let directory = tempfile::tempdir().unwrap();
        write_all(directory.path(), &story());
        let path = directory.path().join(HISTORY);
        let whole = std::fs::read_to_string(&path).unwrap();
        let judged = |text: &str| {
            std::fs::write(&path, text).unwrap();
            let (test, history) = read_back(directory.path());
            story::verdict(&crate::check::judge(&test, &history), "complete")
        };
        assert_eq!(judged(&whole).0, Outcome::Pass);
        let lines: Vec<&str> = whole.lines().collect();
        for kept in [0, 1, lines.len() / 2, lines.len() - 1] {
            let (outcome, detail) = judged(&(lines[..kept].join("\n") + "\n"));
            assert!(outcome == Outcome::Unknown && detail.contains("cut short"), "{kept}: {detail}");
        }
        // In the middle of a line, and some lines before the end.
        assert_eq!(judged(&whole[..whole.len() / 2]).0, Outcome::Unknown);
        let (outcome, detail) = judged(&([&lines[..9], &lines[12..]].concat().join("\n") + "\n"));
        assert!(outcome == Outcome::Unknown && detail.contains("3 events are missing"), "{detail}");
    }

    type Change<'a> = &'a dyn Fn(&mut Vec<Event>);

    /// Whoever takes events out may number the rest anew: the end knows better.
    #[test]
    fn a_history_that_was_numbered_anew_never_passes() {
        let directory = tempfile::tempdir().unwrap();
        let whole = story();
        let judged = |change: Change<'_>| {
            let mut changed = Story::new();
            changed.events.clone_from(&whole.events);
            change(&mut changed.events);
            changed.events.iter_mut().zip(0..).for_each(|(event, index)| event.index = index);
            write_all(directory.path(), &changed);
            let (test, history) = read_back(directory.path());
            story::verdict(&crate::check::judge_again(&test, &history), "complete")
        };
        assert_eq!(judged(&|_| {}).0, Outcome::Pass);
        let count = whole.events.len() - 1;
        let last_lines = |events: &mut Vec<Event>| drop(events.drain(count - 5..count));
        let one_write = |events: &mut Vec<Event>| drop(events.drain(0..2));
        let swapped = |events: &mut Vec<Event>| events.swap(4, 8);
        let other_value = |events: &mut Vec<Event>| events[1].op = story::write(&[(1, 7)], 1);
        let older = |events: &mut Vec<Event>| match &mut events[count].op {
            Op::End { seal, .. } => *seal = None,
            other => panic!("{other:?}"),
        };
        let fewer = |by: usize| format!("it names {count} events before it, and there are {}", count - by);
        let changes: [(Change<'_>, String); 5] = [
            (&last_lines, fewer(5)),
            (&one_write, fewer(2)),
            (&swapped, "it names the checksum".to_owned()),
            (&other_value, "it names the checksum".to_owned()),
            (&older, "neither how many events are before it nor their checksum".to_owned()),
        ];
        for (change, words) in changes {
            let (outcome, detail) = judged(change);
            assert!(outcome == Outcome::Unknown && detail.contains(&words), "{words}: {detail}");
        }
    }

    fn read_back(directory: &Path) -> (Test, Vec<Event>) {
        read(&directory.join(HISTORY)).unwrap()
    }

    #[test]
    fn what_cannot_be_read_says_where() {
        let directory = tempfile::tempdir().unwrap();
        let history = directory.path().join("history.edn");
        let error = |history: &Path| format!("{:#}", read(history).unwrap_err());
        assert!(error(&history).contains("test.edn: what the test was stands there"), "{}", error(&history));
        write_all(directory.path(), &story());
        let mut text = std::fs::read_to_string(&history).unwrap();
        text.push_str("{:index 1\n");
        std::fs::write(&history, text).unwrap();
        let line = story().events.len() + 1;
        let place = format!("history.edn: line {line}: column 10: a collection is not closed");
        assert!(error(&history).contains(&place), "{}", error(&history));
    }

    #[test]
    fn pictures_show_faults_and_are_well_formed() {
        let (test, story) = (register(), story());
        let (operations, _) = operation::pair(&story.events);
        let faults = Faults::gather(&operations);
        let results = crate::check::judge(&test, &story.events);
        let timeline = timeline::draw(&test, &results, &operations, &faults);
        for picture in [&timeline, &plot::latency(&test, &operations, &faults), &plot::rate(&test, &operations, &faults)] {
            assert!(picture.contains("<title>kill-leader at node 1, 2"), "{picture}");
            assert_balanced(picture);
        }
        assert!(timeline.contains("write 2=7") && timeline.contains("read 1: 120=120"), "{timeline}");
    }

    #[test]
    fn pictures_of_long_histories_stay_small() {
        let mut long = Story::new();
        for revision in 1..60_000 {
            long.ok(0, story::write(&[(1, revision)], revision));
        }
        let (operations, _) = operation::pair(&long.events);
        let (test, faults) = (register(), Faults::gather(&operations));
        let results = Results { verdicts: Vec::new(), numbers: Vec::new() };
        let timeline = timeline::draw(&test, &results, &operations, &faults);
        assert!(timeline.len() < 4 << 20 && timeline.contains("of 59999 operations"), "{}", timeline.len());
        for plot in [plot::latency(&test, &operations, &faults), plot::rate(&test, &operations, &faults)] {
            assert!(plot.len() < 1 << 20, "{}", plot.len());
        }
    }

    /// Every element that is opened is closed, in order: enough to find a forgotten escape.
    fn assert_balanced(picture: &str) {
        let mut open: Vec<&str> = Vec::new();
        for tag in picture.split('<').skip(1) {
            let (tag, _) = tag.split_once('>').expect("a tag ends");
            let name = tag.split([' ', '/']).find(|word| !word.is_empty()).unwrap_or_default();
            match tag {
                _ if tag.ends_with('/') || tag.starts_with('!') || name == "meta" => {}
                _ if tag.starts_with('/') => assert_eq!(open.pop(), Some(name), "{tag}"),
                _ => open.push(name),
            }
        }
        assert_eq!(open, Vec::<&str>::new());
    }
}
