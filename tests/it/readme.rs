//! What the README tells people to type is there and does what it says.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

const README: &str = include_str!("../../README.md");

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The commands in its `sh` blocks, in order.
fn commands() -> Vec<&'static str> {
    let blocks = README.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks.flat_map(str::lines).collect()
}

#[test]
fn there_are_two_commands() {
    let [serve, test] = commands()[..] else { panic!("{:?}", commands()) };
    let words: Vec<&str> = serve.split_whitespace().collect();
    assert_eq!(words[..5], ["cargo", "run", "--features", "cli", "--"]);
    let config = words.iter().position(|word| *word == "--config").map(|at| words[at + 1]).unwrap();
    assert_eq!(config, "examples/callboard.toml", "which a test of the program runs");
    assert!(root().join(config).exists());

    let script = root().join(test);
    assert!(fs::metadata(&script).unwrap().permissions().mode() & 0o111 != 0, "{test} can be executed");
    let syntax = Command::new("bash").arg("-n").arg(&script).status().unwrap();
    assert!(syntax.success());
    let ci = fs::read_to_string(root().join(".ci/run")).unwrap();
    assert!(ci.contains(test), "what is checked for everybody is what the README says");
}

#[test]
fn its_exit_codes_and_commands_are_those_of_the_program() {
    let help = Command::new(env!("CARGO_BIN_EXE_callboard")).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let (commands, codes) = help.split_once("Exit codes:").unwrap();
    let mut count = 0;
    for line in codes.lines().filter(|line| !line.trim().is_empty()) {
        let (code, meaning) = line.trim().split_once("  ").unwrap();
        assert!(README.contains(&format!("| {code} | {meaning} |")), "{line}");
        count += 1;
    }
    assert_eq!(count, 13);
    for command in ["serve", "next", "list", "inspect", "pause", "resume", "remove", "run", "add"] {
        assert!(commands.contains(&format!("  {command} ")) && README.contains(command), "{command}");
    }
}

#[test]
fn what_it_links_to_exists() {
    for target in README.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
        assert!(target.starts_with("https://") || root().join(target).exists(), "{target}");
    }
}
