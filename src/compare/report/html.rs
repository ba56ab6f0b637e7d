//! The page of a comparison: one file without scripts, links or pictures of others.

use std::fmt::Write;

use super::{
    Command, Job,
    charts::{self, Course, Quantity},
    options,
    scale::grouped,
    svg::{escaped, swatch},
    words,
};
use crate::compare::{
    Comparison, Ended, Measured, Stage,
    standing::{Standing, Verdict},
};

const STYLE: &str = include_str!("page.css");

/// The page.
pub(super) fn page(comparison: &Comparison<'_>, job: &Job, command: Command<'_>) -> String {
    let title = format!("{} on {}: {} methods compared", job.model, job.task, comparison.standings.len());
    let mut body = format!("<h1>{}</h1>\n<p class=\"lead\">{}</p>\n", escaped(&title), lead(comparison, job));
    if let Some(verdict) = verdict(comparison) {
        let _ = writeln!(body, "<p class=\"verdict\">{verdict}</p>");
    }
    decision(comparison, &mut body);
    results(comparison, &mut body);
    if let Some(drawing) = charts::scores(comparison) {
        section(&mut body, "Scores", SCORES, &drawing);
    }
    curves(comparison, &mut body);
    duels(comparison, &mut body);
    candidates(comparison, &mut body);
    commands(comparison, command, &mut body);
    let title = escaped(&title);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n"
    )
}

const SCORES: &str = "What the weights that dev chose score; whiskers are 95 % intervals of a run, the bar is the mean of \
                      its seeds.";

/// What was done, in a paragraph.
fn lead(comparison: &Comparison<'_>, job: &Job) -> String {
    let config = comparison.config;
    let rungs: Vec<String> = config.rungs.iter().map(|rung| words::budget(*rung)).collect();
    let seeds =
        if config.seeds == 1 { "one further seed".to_owned() } else { format!("{} further seeds", config.seeds) };
    let data = match (job.num_train, job.num_dev) {
        (Some(train), Some(dev)) => {
            format!("{} examples to learn from, {} to choose by", grouped(train), grouped(dev))
        }
        _ => "all examples of its files".to_owned(),
    };
    escaped(&format!(
        "Each method trains for {} with {seeds}, on {data}, at batch {}. Its options were chosen on dev by successive \
         halving ({}) with a seed that does not count. Evaluation takes no part of a budget. {} on {}, {}.",
        words::budget(config.budget),
        job.batch_size,
        rungs.join(", then "),
        if job.machine.threads == 1 { "One thread".to_owned() } else { format!("{} threads", job.machine.threads) },
        job.machine.cpu,
        job.profile
    ))
}

/// The outcome in a sentence.
fn verdict(comparison: &Comparison<'_>) -> Option<String> {
    let first = comparison.ranked().next()?;
    let (mut wins, mut ties) = (Vec::new(), Vec::new());
    for other in comparison.ranked().skip(1) {
        match comparison.verdict(first, other) {
            Verdict::Wins => wins.push(&*other.method.label),
            Verdict::Ties | Verdict::Loses => ties.push(&*other.method.label),
        }
    }
    let mut text = format!("<b>{}</b> ends highest at {}", escaped(&first.method.label), words::score(first.value()?));
    if comparison.metric.is_some_and(|metric| metric.is_better(0.0, 1.0)) {
        text = text.replace("highest", "lowest");
    }
    for (says, others) in [("it wins against", wins), ("it ties with", ties)] {
        if !others.is_empty() {
            let _ = write!(text, "; {says} {}", escaped(&others.join(", ")));
        }
    }
    Some(text + ".")
}

fn section(body: &mut String, title: &str, says: &str, content: &str) {
    let (title, says) = (escaped(title), escaped(says));
    let _ = writeln!(body, "<section>\n<h2>{title}</h2>\n<p>{says}</p>\n{content}</section>");
}

fn decision(comparison: &Comparison<'_>, body: &mut String) {
    let (Some(drawing), Some(target)) = (charts::decision(comparison), comparison.target) else { return };
    let says = format!(
        "Training time until dev first scores {} or better, the mean of the seeds, against the most memory that a run \
         held. Methods on the line are those to choose between: whatever lies in the shade another one beats in both.",
        words::score(target)
    );
    let behind = comparison.ranked().filter(|standing| standing.time_to_target().is_none());
    let behind: Vec<&str> = behind.map(|standing| &*standing.method.label).collect();
    let behind = match behind[..] {
        [] => String::new(),
        _ => format!("<p>Within the budget not every seed reached it of {}.</p>\n", escaped(&behind.join(", "))),
    };
    section(body, "Time to target against memory", &says, &(drawing + &behind));
}

fn curves(comparison: &Comparison<'_>, body: &mut String) {
    let mut grid = String::from("<div class=\"grid\">\n");
    for quantity in [Quantity::Score, Quantity::Loss] {
        for course in [Course::Time, Course::Forwards] {
            grid.extend(charts::curves(comparison, quantity, course));
        }
    }
    grid.push_str("</div>\n");
    if comparison.ranked().next().is_some() {
        let says = "On dev, at each evaluation; thick lines are means over seeds. Time is that of steps alone. A gradient \
                    counts as the forward pass that it begins with.";
        section(body, "On the way", says, &grid);
    }
}

/// A table from its head and rows, whose cells are HTML.
fn table(class: &str, head: &[&str], rows: &[Vec<String>]) -> String {
    let head: String = head.iter().map(|cell| format!("<th>{cell}</th>")).collect();
    let row = |cells: &Vec<String>| {
        let cells: String = cells.iter().map(|cell| format!("<td>{cell}</td>")).collect();
        format!("<tr>{cells}</tr>\n")
    };
    let rows: String = rows.iter().map(row).collect();
    format!(
        "<div class=\"wide\"><table class=\"{class}\">\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div>\n"
    )
}

/// A method's name with the mark of its colour.
fn name(series: usize, standing: &Standing<'_>) -> String {
    let label = escaped(&standing.method.label);
    swatch(series) + &label
}

fn results(comparison: &Comparison<'_>, body: &mut String) {
    const NOTHING: &str = "–";
    let head = [
        "method",
        "chosen",
        "best",
        "each seed, 95 %",
        "final",
        "loss",
        "to target",
        "trained",
        "steps",
        "forwards",
        "a step",
        "peak",
    ];
    let none = || NOTHING.to_owned();
    let row = |(series, standing): (usize, &Standing<'_>)| {
        let number = |number: Option<f64>, say: &dyn Fn(f64) -> String| number.map_or_else(none, say);
        let seeds: Vec<String> = standing.runs.iter().map(|(_, run)| words::interval(&run.best)).collect();
        let mut cells = vec![
            name(series, standing),
            escaped(&standing.chosen()),
            number(standing.value(), &|value| format!("<b>{}</b>", words::score(value))),
            seeds.join("<br>"),
            number(standing.mean(|run| run.last.value), &words::score),
            number(standing.mean(|run| run.best.loss), &words::score),
            to_target(standing).unwrap_or_else(none),
            number(standing.mean(|run| run.seconds), &words::seconds),
            number(standing.mean(|run| run.steps as f64), &|steps| grouped(steps.round() as u64)),
            number(standing.mean(|run| run.forwards as f64), &|forwards| grouped(forwards.round() as u64)),
            number(standing.mean(|run| run.seconds_per_step), &|seconds| format!("{:.0} ms", 1e3 * seconds)),
            standing.peak().map_or_else(none, words::megabytes),
        ];
        if let Some(failure) = &standing.failure {
            cells[3] = format!("{}<span class=\"failure\">{}</span>", cells[3], escaped(failure));
        }
        cells
    };
    let rows: Vec<_> = comparison.standings.iter().enumerate().map(row).collect();
    let split = comparison.ranked().next().and_then(|standing| standing.runs.first()).map(|(_, run)| run);
    let says = match split {
        Some(run) => format!(
            "Scores are {} of {} examples of {}, on which nothing was chosen unless it is dev; best: the weights that dev \
             chose, final: the last. Means over seeds, but the peak, which is the largest.",
            run.metric,
            grouped(run.best.count as u64),
            run.split
        ),
        None => "No run that counts is over yet.".to_owned(),
    };
    section(body, "Results", &says, &table("results", &head, &rows));
}

/// When the target was reached, and by how many seeds if not by all.
fn to_target(standing: &Standing<'_>) -> Option<String> {
    let reached = standing.reached.iter().flatten().count();
    let text = match standing.time_to_target() {
        Some(seconds) => words::seconds(seconds),
        None if reached > 0 => format!("{reached} of {} seeds", standing.reached.len()),
        None => "not reached".to_owned(),
    };
    (!standing.reached.is_empty()).then_some(text)
}

fn duels(comparison: &Comparison<'_>, body: &mut String) {
    let ranked: Vec<_> = comparison.ranked().collect();
    if ranked.len() < 2 {
        return;
    }
    let labels: Vec<String> = ranked.iter().map(|standing| escaped(&standing.method.label)).collect();
    let head: Vec<&str> = std::iter::once("").chain(labels.iter().map(String::as_str)).collect();
    let row = |(series, standing): (usize, &&Standing<'_>)| {
        let against = |other: &&Standing<'_>| match comparison.verdict(standing, other) {
            _ if other.method.label == standing.method.label => String::new(),
            Verdict::Wins => "<span class=\"wins\">wins</span>".to_owned(),
            Verdict::Ties => "<span class=\"ties\">tie</span>".to_owned(),
            Verdict::Loses => "<span class=\"loses\">loses</span>".to_owned(),
        };
        std::iter::once(name(series, standing)).chain(ranked.iter().map(against)).collect()
    };
    let rows: Vec<Vec<String>> = ranked.iter().enumerate().map(row).collect();
    let says = "The row against the column. A method wins if on every seed its best weights are ahead by more than the 95 % \
                interval of the difference (Newcombe's, from both intervals); all else is a tie.";
    section(body, "Who wins against whom", says, &table("duels", &head, &rows));
}

fn candidates(comparison: &Comparison<'_>, body: &mut String) {
    let of_method = |label: &str| {
        let mut cells: Vec<&Ended> = comparison.cells.iter().copied().filter(|ended| ended.method == label).collect();
        cells.retain(|ended| matches!(ended.stage, Stage::Rung(_)));
        cells.sort_by_key(|ended| (ended.stage, ended.candidate));
        cells
    };
    let mut rows = Vec::new();
    for (series, standing) in comparison.standings.iter().enumerate() {
        for ended in of_method(&standing.method.label) {
            let (score, loss) = match ended.measured().and_then(Measured::mark) {
                Some(mark) => (words::score(mark.value), format!("{:.4}", mark.loss)),
                None => ("failed".to_owned(), String::new()),
            };
            let options = escaped(&options(ended));
            let is_chosen = standing.chosen == Some(ended.candidate);
            rows.push(vec![
                name(series, standing),
                ended.stage.to_string(),
                if is_chosen { format!("<b>{options}</b>") } else { options },
                score,
                loss,
                ended.measured().map(|run| grouped(run.steps)).unwrap_or_default(),
            ]);
        }
    }
    if !rows.is_empty() {
        let table = table("candidates", &["method", "rung", "options", "dev at its end", "loss", "steps"], &rows);
        let says = "Of the candidates of a rung the better half goes on; those chosen are bold.";
        section(
            body,
            "How options were chosen",
            says,
            &format!("<details><summary>{} runs</summary>{table}</details>\n", rows.len()),
        );
    }
}

fn commands(comparison: &Comparison<'_>, command: Command<'_>, body: &mut String) {
    if comparison.cells.is_empty() {
        return;
    }
    let mut cells: Vec<&Ended> = comparison.cells.clone();
    cells.sort_by(|a, b| (a.stage, &a.method, a.candidate).cmp(&(b.stage, &b.method, b.candidate)));
    let line = |ended: &&Ended| escaped(&command(ended)) + "\n";
    let (counts, others): (Vec<&Ended>, Vec<&Ended>) =
        cells.into_iter().partition(|ended| matches!(ended.stage, Stage::Seed(_)));
    let list = |cells: &[&Ended]| format!("<pre>{}</pre>", cells.iter().map(line).collect::<String>());
    let content = format!("{}<details><summary>those that chose</summary>{}</details>\n", list(&counts), list(&others));
    let says = "Each run is one of zofo train and can be replayed or exported; with --set output=DIRECTORY it is done again \
                elsewhere.";
    section(body, "Commands", says, &content);
}
