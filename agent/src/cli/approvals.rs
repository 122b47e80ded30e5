//! `weir approvals`: the desk from a terminal.

use std::process::ExitCode;

use anyhow::bail;
use clap::Subcommand;

use super::{Common, table};
use crate::config::Config;
use crate::control::client::Client;
use crate::control::{Request, Response};
use crate::desk::Shown;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The acts that wait, oldest first.
    List,
    /// One act in full: its exact text, who asks, who may answer, until when.
    Show { id: String },
    /// Let the act go ahead; it is sent exactly as it was held.
    Approve {
        id: String,
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Refuse the act.
    Deny {
        id: String,
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Print the list again whenever it changes.
    Watch,
}

pub(crate) fn run(common: &Common, args: Args) -> anyhow::Result<ExitCode> {
    let config = Config::load(&common.config)?;
    let mut client = Client::connect(&config.control)?;
    match args.command {
        Command::List => print(common, &open(client.ask(&Request::Approvals)?)?)?,
        Command::Show { id } => {
            let questions = open(client.ask(&Request::Approvals)?)?;
            let Some(question) = questions.iter().find(|question| question.id == id) else {
                bail!("no act with id {id} is waiting; `weir approvals list` shows those that are");
            };
            show(common, question)?;
        }
        Command::Approve { id, reason } => answer(common, &mut client, id, true, reason)?,
        Command::Deny { id, reason } => answer(common, &mut client, id, false, reason)?,
        Command::Watch => {
            let mut response = client.ask(&Request::Watch)?;
            loop {
                print(common, &open(response)?)?;
                response = client.receive()?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn answer(
    common: &Common,
    client: &mut Client,
    id: String,
    granted: bool,
    reason: String,
) -> anyhow::Result<()> {
    let response = client.ask(&Request::Answer { id, granted, reason })?;
    let Response::Answered { question } = response else { bail!("the agent answered something else") };
    if common.json {
        println!("{}", serde_json::json!({"id": question.id, "granted": granted}));
    } else {
        println!(
            "{} {}: {}",
            if granted { "approved" } else { "denied" },
            question.id,
            visible(&question.summary)
        );
    }
    Ok(())
}

fn open(response: Response) -> anyhow::Result<Vec<Shown>> {
    match response {
        Response::Approvals { open } => Ok(open),
        _ => bail!("the agent answered something else"),
    }
}

fn print(common: &Common, questions: &[Shown]) -> anyhow::Result<()> {
    if common.json {
        for question in questions {
            println!("{}", serde_json::to_string(question)?);
        }
        return Ok(());
    }
    if questions.is_empty() {
        println!("Nothing waits for approval.");
        return Ok(());
    }
    let mut rows = table::new(&["ID", "WORKLOAD", "TO", "ACT", "RULE", "MAY ANSWER", "LEFT"]);
    for question in questions {
        rows.add_row([
            question.id.clone(),
            visible(&question.requester.workload),
            question.requester.destination.clone(),
            cut(&visible(&question.summary), 60),
            question.rule.clone(),
            question.by.join(", "),
            left(question),
        ]);
    }
    println!("{rows}");
    Ok(())
}

fn show(common: &Common, question: &Shown) -> anyhow::Result<()> {
    if common.json {
        println!("{}", serde_json::to_string(question)?);
        return Ok(());
    }
    let requester = &question.requester;
    println!("act         {}", question.id);
    println!("text        {}", visible(&question.summary));
    println!("sha256      {}", question.digest);
    println!("effects     {}", question.effects.join(", "));
    println!("relations   {}", visible(&question.relations.join(", ")));
    println!(
        "workload    {} (owner {}, user {})",
        requester.workload,
        requester.owner,
        visible(&requester.user)
    );
    println!("process     {} pid {}", visible(&requester.exe), requester.pid);
    println!("destination {}", requester.destination);
    println!("rule        {}: {}", question.rule, question.message);
    println!("may answer  {}", question.by.join(", "));
    println!("left        {}", left(question));
    Ok(())
}

/// Time until the act is refused for want of an answer.
fn left(question: &Shown) -> String {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX));
    format!("{} s", question.expires_ns.saturating_sub(now) / 1_000_000_000)
}

/// What a workload wrote must not steer the approver's terminal: controls and bidirectional marks are shown as escapes.
fn visible(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\u{ad}'
            | '\u{61c}'
            | '\u{2028}'
            | '\u{2029}'
            | '\u{e0000}'..='\u{e007f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{2069}'
            | '\u{feff}' => c.escape_unicode().to_string(),
            c if c.is_control() => c.escape_default().to_string(),
            c => c.to_string(),
        })
        .collect()
}

fn cut(text: &str, chars: usize) -> String {
    if text.chars().count() <= chars {
        return text.into();
    }
    let mut cut: String = text.chars().take(chars.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_tricks_are_shown_not_obeyed() {
        assert_eq!(visible("DELETE\u{1b}[2K\r\u{202e}x"), "DELETE\\u{1b}[2K\\r\\u{202e}x");
    }

    #[test]
    fn long_acts_are_cut_in_the_list_only() {
        assert_eq!(cut("abcdef", 4), "abc…");
        assert_eq!(cut("abcd", 4), "abcd");
    }
}
