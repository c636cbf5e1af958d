//! Pages: one title each, and links that lead somewhere.

use super::source::{File, Repository};

/// The lines of a page that are text, not code, with their numbers.
fn prose(text: &str) -> Vec<(usize, &str)> {
    let mut in_code = false;
    let mut out = Vec::new();
    for (i, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        } else if !in_code {
            out.push((i, line));
        }
    }
    out
}

/// The code blocks of a page: the word after the fence, and the lines.
pub(crate) fn blocks(text: &str) -> Vec<(String, String)> {
    let mut out: Vec<(String, String)> = Vec::new();
    let mut open = false;
    for line in text.lines() {
        match (line.trim_start().strip_prefix("```"), open) {
            (Some(word), false) => out.push((word.trim().to_owned(), String::new())),
            (Some(_), true) => {}
            (None, true) => {
                if let Some((_, block)) = out.last_mut() {
                    block.push_str(line);
                    block.push('\n');
                }
                continue;
            }
            (None, false) => continue,
        }
        open = !open;
    }
    out
}

/// The name by which a heading can be linked to, as forges make it.
fn anchor(heading: &str) -> String {
    let plain = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = plain.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// Targets of `[text](target)`.
fn links(line: &str) -> Vec<&str> {
    line.split("](").skip(1).filter_map(|rest| rest.split_once(')').map(|(t, _)| t)).collect()
}

/// `a/b.md` and `../c.md` give `c.md`; `None` where it leaves the repository.
fn resolve(from: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

fn check_link(repository: &Repository, page: &File, target: &str) -> Option<&'static str> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (path, heading) = target.split_once('#').unwrap_or((target, ""));
    let Some(path) = resolve(&page.path, path) else { return Some("leaves the repository") };
    let text = if target.starts_with('#') { page.text.clone() } else { repository.text(&path) };
    if !target.starts_with('#') && !repository.has_file_or_folder(&path) {
        return Some("leads nowhere");
    }
    let known = prose(&text).into_iter().any(|(_, l)| l.starts_with('#') && anchor(l) == heading);
    (!heading.is_empty() && !known).then_some("names a heading that is not there")
}

pub(crate) fn check(repository: &Repository) -> Vec<String> {
    let mut faults = Vec::new();
    for page in repository.all().filter(|f| f.path.ends_with(".md")) {
        let titles = prose(&page.text).into_iter().filter(|(_, l)| l.starts_with("# ")).count();
        if titles != 1 {
            let path = &page.path;
            faults.push(format!("  {path}: {titles} titles. A page has one line with `# `."));
        }
        for (i, line) in prose(&page.text) {
            for target in links(line) {
                if let Some(why) = check_link(repository, page, target) {
                    faults.push(page.at(i) + &format!("the link `{target}` {why}. Correct it."));
                }
            }
        }
    }
    faults
}

/// Dead links, dead headings and pages with two titles are found; code is not read as text.
#[test]
fn broken_pages_are_found() {
    let page = |text: &str| {
        let other = ("docs/b.md", "# B\n\n## How it works\n");
        check(&Repository::of(&[("docs/a.md", text), other, ("x/y.rs", "")])).len()
    };
    assert_eq!(page("# A\n[b](b.md#how-it-works) [x](../x) [w](https://w.w)\n"), 0);
    assert_eq!(page("# A\n[b](c.md)\n"), 1);
    assert_eq!(page("# A\n[b](b.md#nothing)\n"), 1);
    assert_eq!(page("# A\n[b](../../etc)\n"), 1);
    assert_eq!(page("# A\n# Another\n"), 1);
    assert_eq!(page("no title\n"), 1);
    assert_eq!(page("# A\n```\n# a comment\n[b](c.md)\n```\n"), 0);
    assert_eq!(blocks("a\n```sh\nb\nc\n```\n```\nd\n```\n")[0], ("sh".into(), "b\nc\n".into()));
}
