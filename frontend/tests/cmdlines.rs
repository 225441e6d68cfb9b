//! Command lines that people really use: each parses, or is refused with the words of QEMU 7.2.

use std::ffi::OsString;

use rqemu_frontend::{parse, ArgError, Parsed};

/// Options whose lines need a file or a descriptor that is not here.
const NEEDS_HOST: [&str; 2] = ["-readconfig", "-add-fd"];

/// What an error says, without the option that it names: paths in the data were made anonymous. Of several unknown
/// keys QEMU names whichever its hash table holds first.
fn class(message: &str) -> &str {
    let text = message.lines().next().unwrap_or_default().rsplit(": ").next().unwrap_or_default();
    if text.ends_with("is unexpected") {
        return "is unexpected";
    }
    text
}

#[test]
fn real_command_lines() {
    let data = include_str!("../../compat-tests/data/cmdlines.jsonl");
    let mut bad = Vec::new();
    let mut parsed = 0;
    for line in data.lines() {
        let entry: serde_json::Value = serde_json::from_str(line).unwrap();
        let argv: Vec<OsString> =
            entry["argv"].as_array().unwrap().iter().map(|a| OsString::from(a.as_str().unwrap())).collect();
        if argv.iter().any(|a| NEEDS_HOST.iter().any(|n| a == n)) {
            continue;
        }
        // Null where QEMU was not asked.
        let Some(accepted) = entry["accepted_by_7_2"].as_bool() else { continue };
        let expected = entry["qemu_7_2_error"].as_str().unwrap_or_default();
        match parse(&argv).result {
            // A refusal that needs the registry, a file or the host comes later.
            Ok(Parsed::Run(_)) => parsed += 1,
            Ok(Parsed::Help(_)) if argv.iter().any(|a| a == "help" || a == "?") => {}
            Ok(other) => bad.push(format!("{}: {other:?}", entry["id"])),
            Err(ArgError(reports)) => {
                let ours = reports[0].render("qemu");
                // QEMU looks at the machine type before the network; the registry knows the types, the parser does not.
                let earlier = expected.ends_with("unsupported machine type");
                // Cards that this build lacks, and files that are on the user's machine only.
                let not_here = ["VGA not available", "t open file", "Could not open"];
                if not_here.iter().any(|t| ours.contains(t)) {
                    continue;
                }
                if accepted || (class(&ours) != class(expected) && !earlier) {
                    bad.push(format!("{}: ours: {ours}  QEMU's: {expected}", entry["id"]));
                }
            }
        }
    }
    assert!(bad.is_empty(), "{} differ:\n{}", bad.len(), bad.join("\n"));
    assert!(parsed > 250, "only {parsed} lines parsed");
}
