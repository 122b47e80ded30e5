//! Which of the workloads' patterns the kernel programs can know, and which only a living agent labels.
//! It refuses to guess at the rest of the fence: that is the probes' business.

use super::Row;
use crate::config::Config;
use crate::workload::Workloads;

pub(super) fn row(config: &Config) -> Row {
    let workloads = match Workloads::new(config) {
        Ok(workloads) => workloads,
        Err(fault) => {
            let lost = "everything: the agent does not start";
            return Row::missing("workloads", fault.to_string(), lost, "rename one");
        }
    };
    let beyond: Vec<String> =
        workloads.beyond_kernel().map(|(pattern, why)| format!("{pattern:?}: {why}")).collect();
    if beyond.is_empty() {
        return Row::good("workloads", "new cgroups are labelled as they are made, also without an agent");
    }
    Row::less(
        "workloads",
        beyond.join("\n"),
        "labelled only while the agent lives, and a moment late: until then a restarted service goes direct",
        "write one `*` a segment, 6 segments at most, 64 patterns in all",
    )
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    fn row_of(pattern: &str) -> Row {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weir.yaml");
        let text = format!(
            "policies: /p\naudit: {{dir: /a}}\nworkloads: [{{name: a, cgroup: \"{pattern}\"}}, {{name: b}}]\n"
        );
        std::fs::write(&path, text).unwrap();
        row(&Config::load(&path).unwrap())
    }

    #[test]
    fn patterns_beyond_the_kernel_are_named_with_the_reason() {
        assert_eq!(row_of("system.slice/pay*.service").state, State::Good);
        for pattern in ["a*b*c", "a/b/c/d/e/f/g", &format!("{}*", "n".repeat(65))] {
            let row = row_of(pattern);
            assert_eq!(row.state, State::Less, "{pattern}");
            assert!(row.found.contains(pattern) && row.lost.contains("while the agent lives"), "{row:?}");
        }
    }
}
