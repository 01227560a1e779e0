//! The rules of routing.md, case by case.

use super::script::run;

#[test]
fn cases_come_out_as_written() {
    let requests = run(include_str!("precedence.script"));
    assert!(requests >= 100, "the script lost cases: {requests}");
}

#[test]
fn what_no_rule_answers_is_told_why() {
    let requests = run(include_str!("unmatched.script"));
    assert!(requests >= 20, "the script lost cases: {requests}");
}

#[test]
fn calls_come_out_as_written() {
    let requests = run(include_str!("grpc.script"));
    assert!(requests >= 50, "the script lost cases: {requests}");
}
