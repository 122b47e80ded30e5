//! What each kernel came to, as a table that a README can hold or as JSON. It refuses to call a kernel good that left a
//! part out, and to call it refused unless the product itself names what is missing.

use std::time::Duration;

use serde_json::{Value, json};

use super::guest::Report;
use super::offer::Series;

/// One line of the matrix.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) kernel: String,
    series: String,
    pub(super) verdict: Verdict,
    /// What `weir check` says that this kernel lacks, and what is lost with it.
    lost: Vec<String>,
    pub(super) took: Duration,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Every check of the fence's tests held, and the agent served a request and refused one.
    Works {
        checks: usize,
    },
    /// The kernel lacks something; `weir check` names it and the agent does not start.
    Refused(String),
    Failed(String),
    /// No such kernel on offer; the nearest newer one.
    Absent(Option<String>),
}

impl Verdict {
    pub(super) fn text(&self) -> String {
        match self {
            Verdict::Works { checks } => format!("works, {checks} checks"),
            Verdict::Refused(_) => "refused, named".into(),
            Verdict::Failed(why) => format!("FAILED: {why}"),
            Verdict::Absent(None) => "not on offer".into(),
            Verdict::Absent(Some(nearest)) => format!("not on offer; nearest {nearest}"),
        }
    }
}

impl Row {
    pub(super) fn of(series: &str, kernel: &str, report: &Report, took: Duration) -> Row {
        let mut lacks = lacks(report);
        let verdict = judge(report, &lacks);
        if matches!(verdict, Verdict::Refused(_)) {
            // Where nothing runs, only the reason matters.
            lacks.retain(|lack| lack.is_needed);
        }
        Row {
            kernel: kernel.into(),
            series: series.into(),
            verdict,
            lost: lacks.into_iter().map(|lack| format!("{}: {}", lack.what, lack.lost)).collect(),
            took,
        }
    }

    pub(super) fn absent(series: Series, nearest: Option<&str>) -> Row {
        Row {
            kernel: series.to_string(),
            series: series.to_string(),
            verdict: Verdict::Absent(nearest.map(str::to_owned)),
            lost: Vec::new(),
            took: Duration::ZERO,
        }
    }
}

/// A row of `weir check` about the kernel that is not good.
struct Lack {
    what: String,
    lost: String,
    is_needed: bool,
}

fn lacks(report: &Report) -> Vec<Lack> {
    let lines = report.part("check").map(|part| part.lines.as_slice()).unwrap_or_default();
    let rows = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    rows.filter(|row| row["state"] != "ok" && text(&row["what"]).starts_with("kernel"))
        .map(|row| Lack {
            what: text(&row["what"]).trim_start_matches("kernel: ").to_owned(),
            lost: text(&row["lost"]),
            is_needed: row["state"] == "MISSING",
        })
        .collect()
}

fn judge(report: &Report, lacks: &[Lack]) -> Verdict {
    let status = |name| report.part(name).and_then(|part| part.status);
    let last = |name| report.part(name).and_then(|part| part.lines.last().cloned()).unwrap_or_default();
    if !report.done {
        let ended =
            ["request", "agent", "fence", "check"].into_iter().find(|name| report.part(name).is_some());
        return Verdict::Failed(format!("the guest did not end; it was at {}", ended.unwrap_or("boot")));
    }
    let named: Vec<&str> = lacks.iter().filter(|lack| lack.is_needed).map(|lack| &*lack.what).collect();
    match (status("check"), status("fence"), status("agent"), status("request")) {
        (Some(0), Some(0), Some(0), Some(0)) => {
            let lines = report.part("fence").map(|part| part.lines.as_slice()).unwrap_or_default();
            Verdict::Works { checks: lines.iter().filter(|line| line.starts_with("  ok  ")).count() }
        }
        (Some(1), _, Some(1), None) if !named.is_empty() => Verdict::Refused(last("agent")),
        (Some(0), Some(0), Some(0), _) => Verdict::Failed("a request through the agent".into()),
        (Some(0), Some(0), _, _) => Verdict::Failed(format!("the agent: {}", last("agent"))),
        (Some(0), _, _, _) => {
            let lines = report.part("fence").map(|part| part.lines.as_slice()).unwrap_or_default();
            let why =
                lines.iter().find(|line| line.contains("FAILED") || line.contains("the fence does not rise"));
            Verdict::Failed(why.cloned().unwrap_or_else(|| format!("the fence's tests: {}", last("fence"))))
        }
        _ => {
            Verdict::Failed("weir check names something missing, and the agent does not refuse for it".into())
        }
    }
}

/// In Markdown.
pub(super) fn table(rows: &[Row]) -> String {
    let mut table = String::from("| kernel | result | lost there |\n|---|---|---|\n");
    for row in rows {
        let lost = if row.lost.is_empty() { "".into() } else { row.lost.join("; ") };
        table.push_str(&format!("| {} | {} | {lost} |\n", row.kernel, row.verdict.text()));
    }
    table
}

/// An object a line.
pub(super) fn json(rows: &[Row]) -> String {
    let mut text = String::new();
    for row in rows {
        let (result, checks, said) = match &row.verdict {
            Verdict::Works { checks } => ("works", Some(*checks), None),
            Verdict::Refused(said) => ("refused", None, Some(said.clone())),
            Verdict::Failed(why) => ("failed", None, Some(why.clone())),
            Verdict::Absent(nearest) => ("absent", None, nearest.clone()),
        };
        let row = json!({"series": row.series, "kernel": row.kernel, "result": result, "checks": checks, "said": said,
                         "lost": row.lost, "seconds": row.took.as_secs()});
        text.push_str(&row.to_string());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const LESS: &str = r#"{"what":"kernel: unix sockets","state":"less","lost":"local databases"}"#;
    const NEEDED: &str = r#"{"what":"kernel: namespaces","state":"MISSING","lost":"the fence"}"#;
    const OTHER: &str = r#"{"what":"clock","state":"less","lost":"times"}"#;

    fn row(text: &str) -> Row {
        Row::of("6.1", "6.1.0-1", &Report::parse(text), Duration::from_secs(1))
    }

    #[test]
    fn a_kernel_works_when_every_part_ended_well() {
        let whole = format!(
            "@vm begin check\n{LESS}\n{OTHER}\n@vm end check 0\n@vm begin fence\n  ok  a\n  ok  b\n@vm end fence 0\n\
             @vm begin agent\n@vm end agent 0\n@vm begin request\n@vm end request 0\n@vm done\n"
        );
        let good = row(&whole);
        assert_eq!(good.verdict, Verdict::Works { checks: 2 });
        assert_eq!(good.lost, ["unix sockets: local databases"]);
        assert!(table(&[good]).contains("| 6.1.0-1 | works, 2 checks | unix sockets: local databases |"));
        assert!(matches!(row(&whole.replace("@vm done\n", "")).verdict, Verdict::Failed(_)));
        assert!(matches!(row(&whole.replace("end request 0", "end request 2")).verdict, Verdict::Failed(_)));
        assert!(matches!(row(&whole.replace("end fence 0", "end fence 101")).verdict, Verdict::Failed(_)));
    }

    #[test]
    fn a_kernel_is_refused_only_when_the_lack_is_named() {
        let refused = |check: &str| {
            row(&format!(
                "@vm begin check\n{check}\n@vm end check 1\n@vm begin fence\n@vm end fence 101\n@vm begin agent\n\
                 weir: no\n@vm end agent 1\n@vm done\n"
            ))
        };
        assert_eq!(refused(NEEDED).verdict, Verdict::Refused("weir: no".into()));
        assert!(matches!(refused(LESS).verdict, Verdict::Failed(_)));
        let absent = Row::absent(Series::Of(5, 15), Some("linux-image-6.1"));
        assert!(json(&[absent]).contains("\"result\":\"absent\""));
    }
}
