//! `weir policy explain DIR`: the facts, every rule with the reason why it matches or not, and the verdict.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use comfy_table::{Table, presets};
use weir_core::action::{Action, Protocol};
use weir_core::policy::{Explanation, Policy};

use super::scene::{self, Actor, Line, Scene};
use super::{Common, config, grammar, load};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Folder of policy files.
    dir: PathBuf,
    /// Label of the workload that acts.
    #[arg(long, default_value = "")]
    workload: String,
    /// Destination, HOST:PORT; a name counts as proved by certificate.
    #[arg(long)]
    dst: String,
    /// SQL text that is sent.
    #[arg(long, conflicts_with = "http")]
    sql: Option<String>,
    /// Request that is sent, such as 'GET /v1/users'.
    #[arg(long)]
    http: Option<String>,
    /// File with the body of the request.
    #[arg(long, requires = "http")]
    body: Option<PathBuf>,
    /// Database of the PostgreSQL connection.
    #[arg(long, default_value = "")]
    database: String,
    /// A table of that database, such as 'public.customers(id,email)'; may be repeated.
    /// Without any, bare table names are taken to be in the schema `public`.
    #[arg(long = "table", requires = "sql")]
    tables: Vec<String>,
    /// Verified user behind the process.
    #[arg(long, default_value = "")]
    user: String,
    /// Group of that user; may be repeated.
    #[arg(long = "group")]
    groups: Vec<String>,
    /// Path of the executable.
    #[arg(long, default_value = "")]
    exe: String,
    #[arg(long, default_value_t = 0)]
    uid: u32,
    /// Time of the act, such as 2026-11-20T03:00:00+01:00; now when absent.
    #[arg(long)]
    at: Option<String>,
}

pub(super) fn run(common: &Common, args: &Args) -> anyhow::Result<ExitCode> {
    let config = config(common)?;
    let policy = Arc::new(load(config.as_ref(), &args.dir)?.policy);
    let actor = Actor {
        workload: args.workload.clone(),
        user: args.user.clone(),
        groups: args.groups.clone(),
        exe: args.exe.clone(),
        uid: args.uid,
    };
    let mut scene = Scene {
        identity: actor.identity(config.as_ref()),
        destination: scene::destination(&args.dst)?,
        protocol: Protocol::Opaque,
        database: args.database.clone(),
        wall_ns: args.at.as_deref().map_or_else(scene::now, scene::time)?,
    };
    let explanations = match (&args.sql, &args.http) {
        (Some(sql), _) => {
            scene.protocol = Protocol::Postgres;
            of_sql(&policy, &scene, sql, &args.tables)?
        }
        (None, Some(line)) => {
            scene.protocol = Protocol::Http;
            let line = Line::parse(line, &scene.destination)?;
            let body =
                args.body.as_ref().map(std::fs::read).transpose().context("the body cannot be read")?;
            let request = line.request(Some(body.as_deref().unwrap_or_default()));
            vec![policy.explain(&scene.context(), &Action::Http(&request))]
        }
        (None, None) => vec![policy.explain(&scene.context(), &Action::Connect)],
    };
    for explanation in &explanations {
        match common.json {
            true => println!("{}", serde_json::to_string(explanation)?),
            false => print(explanation),
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn of_sql(
    policy: &Arc<Policy>,
    scene: &Scene,
    sql: &str,
    tables: &[String],
) -> anyhow::Result<Vec<Explanation>> {
    let tables: Vec<(String, Vec<String>)> =
        tables.iter().map(|text| table(text)).collect::<Result<_, _>>()?;
    let catalog = scene::catalog(&tables)?;
    let statements = grammar::statements(sql, catalog.as_ref());
    anyhow::ensure!(!statements.is_empty(), "there is no statement in --sql");
    let explain = |statement| {
        let context = scene.context();
        let mut explanation = policy.explain(&context, &Action::Sql(statement));
        let obstacle = grammar::obstacle(policy, &context, statement, catalog.as_ref());
        if let Some((rule, message)) = obstacle.filter(|_| explanation.decision != "deny") {
            explanation.decision = "deny".into();
            (explanation.rule, explanation.message) = (rule.to_string(), message);
        }
        explanation
    };
    Ok(statements.iter().map(explain).collect())
}

/// `public.customers(id, email)`.
fn table(text: &str) -> anyhow::Result<(String, Vec<String>)> {
    let (name, columns) = text.split_once('(').unwrap_or((text, ""));
    let columns = columns.trim_end_matches(')').split(',').map(str::trim).filter(|name| !name.is_empty());
    Ok((name.trim().into(), columns.map(Into::into).collect()))
}

fn print(explanation: &Explanation) {
    println!("facts");
    for (name, value) in &explanation.facts {
        println!("  {name:<14} {value}");
    }
    println!("policies");
    for file in &explanation.files {
        let targets = if file.targets { "applies" } else { "does not apply" };
        println!("  {:<14} {targets}: {} ({}:{})", file.policy, file.why, file.file, file.line);
    }
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY).set_header(["rule", "then", "matches", "why", "where"]);
    for rule in &explanation.rules {
        let matches = match (rule.matched, rule.monitored) {
            (true, true) => "yes (monitor)",
            (true, false) => "yes",
            (false, _) => "no",
        };
        let name = format!("{}/{}", rule.policy, rule.rule);
        table.add_row([&name, rule.then, matches, &rule.why, &format!("{}:{}", rule.file, rule.line)]);
    }
    if !explanation.rules.is_empty() {
        println!("{table}");
    }
    println!("result");
    println!("  decision       {} by {}", explanation.decision, explanation.rule);
    let lists = [("mask", explanation.masks.join("; ")), ("inject", explanation.injects.join("; "))];
    let durability = format!("{:?}", explanation.durability).to_lowercase();
    let would = explanation.would.clone().unwrap_or_default();
    let rest = [("message", explanation.message.clone()), ("durability", durability), ("would", would)];
    for (name, value) in rest.into_iter().chain(lists).filter(|(_, value)| !value.is_empty()) {
        println!("  {name:<14} {value}");
    }
}
