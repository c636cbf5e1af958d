//! Tidy: rules about this repository that no compiler and no lint can see.
//!
//! Each rule has a module and a test of its own here; a message names the file, the rule and the
//! way out. The rules are plain functions over text, so that each has a small self-test with bad
//! examples.

mod clocks;
mod directions;
mod documents;
mod examples;
mod lockfile;
mod modules;
mod promises;
mod shape;
mod source;

use source::Repository;

/// Fails with all faults at once, so that one run shows the whole work.
fn none(rule: &str, faults: &[String]) {
    assert!(faults.is_empty(), "{} × {rule}:\n{}\n", faults.len(), faults.join("\n"));
}

fn over_rust(rule: &str, check: impl Fn(&source::File) -> Vec<String>) {
    let repository = Repository::read();
    let faults: Vec<String> = repository.rust().flat_map(check).collect();
    none(rule, &faults);
}

/// No file is longer than 400 lines, its inline tests apart.
#[test]
fn files_are_short() {
    over_rust("a file is too long", shape::length);
}

/// No line is longer than 100 columns.
#[test]
fn lines_are_short() {
    over_rust("a line is too long", shape::columns);
}

/// Every file says first what it is for.
#[test]
fn files_begin_with_their_purpose() {
    over_rust("a file does not say what it is for", shape::purpose);
}

/// Nothing that was only meant for a while stays.
#[test]
fn no_leftovers() {
    over_rust("something was left over", shape::leftovers);
}

/// A file is named after what it holds.
#[test]
fn file_names_say_something() {
    over_rust("a file name says nothing", shape::name);
}

/// An error's text leaves its cause to whoever prints the chain.
#[test]
fn errors_say_their_cause_once() {
    over_rust("an error says its cause twice", shape::causes);
}

/// Rooms know only the rooms that they may know.
#[test]
fn directions_are_kept() {
    over_rust("a room names what it must not know", directions::check);
}

/// `unsafe`, the signature library and the publisher's crate have one place each.
#[test]
fn some_words_have_one_place() {
    over_rust("a word stands where it must not", directions::check_places);
}

/// Pure rooms switch on the lints that keep clocks, files and random order out.
#[test]
fn pure_rooms_deny_impure_types() {
    none("a pure room is not guarded", &directions::check_pure(&Repository::read()));
}

/// The clock is read in the driver, and elsewhere only for a reason that is written down.
#[test]
fn clocks_are_read_where_a_reason_stands() {
    let repository = Repository::read();
    over_rust("a clock is read without a reason", clocks::check);
    none("a reason has no clock any more", &clocks::unused(&repository));
}

/// Every `mod x;` has a file, and every file is reached from a crate's root.
#[test]
fn every_file_is_reached() {
    none("the tree of modules has a hole", &modules::check(&Repository::read()));
}

/// Every page has one title, and no link leads nowhere.
#[test]
fn pages_have_one_title_and_good_links() {
    none("a page is broken", &documents::check(&Repository::read()));
}

/// What operators copy from `deploy/` is accepted by the code that reads it.
#[test]
fn examples_are_accepted() {
    none("an example is refused", &examples::check(&Repository::read()));
}

/// T123: no second TLS library or runtime, nothing from outside of the registry, and nothing below
/// the version in which a fault was mended.
#[test]
fn t123_dependencies_are_the_agreed_ones() {
    none("a dependency must go", &lockfile::check(&Repository::read().text("Cargo.lock")));
}

/// Every figure that we promise names what measures it, and that exists.
#[test]
fn promises_name_what_holds_them() {
    none("a promise has nothing behind it", &promises::check(&Repository::read()));
}
