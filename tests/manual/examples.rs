//! Runs each `lua` block of the manual, the answers, the scenarios and the README.
//!
//! A part of a `sync{}` is completed. If `default.…` sends to `/backup`, the files must arrive
//! there, at the start and after a change; commands and functions must be called for a change. A
//! comment before a block changes this: `<!-- test: accepted -->` only starts the block, `<!--
//! needs: … -->` skips it.

use std::fs;

use crate::site::{Site, files_below, project};
use crate::support::dir::skip;

/// An example and its position.
struct Example {
    place: String,
    text: String,
    /// The comments before it.
    remarks: Vec<String>,
}

#[test]
fn examples_of_the_manual_run() {
    run_all(examples("docs/configuration.md"));
}

#[test]
fn examples_of_check_md_run() {
    run_all(examples("docs/check.md"));
}

#[test]
fn examples_of_the_answers_run() {
    run_all(examples("docs/how-do-i.md"));
}

#[test]
fn examples_of_the_scenarios_run() {
    let pages = fs::read_dir(project("docs/scenarios")).unwrap();
    let mut names: Vec<_> = pages
        .map(|page| page.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let blocks = names
        .iter()
        .map(|name| examples(&format!("docs/scenarios/{name}")));
    run_all(blocks.flatten().collect());
}

#[test]
fn examples_of_the_readme_run() {
    let mut examples = examples("README.md");
    for example in &mut examples {
        // In the README, source and target have the same name on two hosts.
        example.text = example.text.replace("_host:/data/", "_host:/backup/");
    }
    run_all(examples);
}

fn run_all(examples: Vec<Example>) {
    assert!(!examples.is_empty());
    let mut left = Vec::new();
    for example in &examples {
        match example
            .remarks
            .iter()
            .find(|remark| remark.starts_with("needs: "))
        {
            Some(needs) => left.push(format!("{} ({needs})", example.place)),
            None => run(example),
        }
    }
    if !left.is_empty() {
        skip(&format!("{} examples: {}", left.len(), left.join(", ")));
    }
}

fn run(example: &Example) {
    println!("{}", example.place);
    let mut site = Site::new();
    site.start(&whole(&example.text), &["-delay", "0.2"]);
    if example
        .remarks
        .iter()
        .any(|remark| remark == "test: accepted")
    {
        return site.wait_said("--- Startup ---");
    }
    let mirrors = example.text.contains("default.") && example.text.contains("/backup/")
        || !example.text.contains("sync");
    if mirrors {
        site.wait("first transfer", |site| arrived(site, "hello"));
        // A filter or `subdirs` may exclude one of the two files.
        site.write("/data/www/public/later.txt", "later");
        site.write("/data/www/later.txt", "later");
        site.wait("second transfer", |site| arrived(site, "later.txt"));
    } else {
        // The test cannot see if the watch is set, so it creates files until one arrives.
        site.wait_said("--- Startup ---");
        let mut number = 0;
        site.wait("word of a change", |site| {
            number += 1;
            site.write(&format!("/data/www/later{number}.txt"), "later");
            site.said().contains("later")
        });
    }
    assert_eq!(
        site.stop().code(),
        Some(143),
        "{}:\n{}",
        example.place,
        site.said()
    );
}

fn arrived(site: &Site, name: &str) -> bool {
    let below = files_below(&site.path("/backup/"));
    below.iter().any(|file| file.ends_with(name))
}

/// Completes an example to a configuration.
fn whole(text: &str) -> String {
    let lines = || {
        text.lines()
            .map(|line| line.split("--").next().unwrap_or_default())
    };
    if lines().any(|line| line.contains("sync {") || line.contains("sync{")) {
        return text.to_owned();
    }
    format!("sync {{ default.rsync, source = \"/data/www\", target = \"/backup/www\",\n{text}}}\n")
}

fn examples(file: &str) -> Vec<Example> {
    let text = fs::read_to_string(project(file)).unwrap();
    let mut examples = Vec::new();
    let mut remarks = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        if let Some(remark) = line.strip_prefix("<!-- ") {
            remarks.push(remark.trim_end_matches(" -->").to_owned());
        } else if line == "```lua" {
            let body = lines.by_ref().take_while(|(_, line)| *line != "```");
            examples.push(Example {
                place: format!("{file}:{}", number + 1),
                text: body.map(|(_, line)| format!("{line}\n")).collect(),
                remarks: std::mem::take(&mut remarks),
            });
        }
    }
    examples
}
