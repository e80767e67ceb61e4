//! The authorisation matrix: every operation as every caller. `docs/authorisation.md` has the expected answers.

mod cast;
mod catalogue;
mod http;
mod operations;

pub(crate) use cast::SIGNING_KEY;

use anyhow::{Context as _, Result, ensure};
use cast::{Cast, Stage};
use std::collections::BTreeSet;
use tests::world::World;

const PAGE: &str = include_str!("../../docs/authorisation.md");

/// Who performs an operation; the columns of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caller {
    Nobody,
    Stranger,
    Member,
    Owner,
    Blocked,
    Removed,
    OtherApp,
    Expired,
    Revoked,
}

/// The columns, in order.
const CALLERS: [(&str, Caller); 9] = [
    ("nobody", Caller::Nobody),
    ("stranger", Caller::Stranger),
    ("member", Caller::Member),
    ("owner", Caller::Owner),
    ("blocked", Caller::Blocked),
    ("removed", Caller::Removed),
    ("other app", Caller::OtherApp),
    ("expired", Caller::Expired),
    ("revoked", Caller::Revoked),
];

/// An operation and the answer that each caller should get.
#[derive(Debug)]
struct Row {
    operation: String,
    expected: Vec<(Caller, &'static str)>,
}

/// The rows of all tables of operations.
fn rows() -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut is_table = false;
    for line in PAGE.lines() {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        match cells.as_slice() {
            ["operation", callers @ ..] => {
                let expected = CALLERS.map(|(name, _)| name);
                ensure!(callers == expected, "the columns are {callers:?} instead of {expected:?}");
                is_table = true;
            }
            [rule, ..] if rule.starts_with("---") => {}
            [operation, answers @ ..] if is_table && line.starts_with('|') => {
                ensure!(answers.len() == CALLERS.len(), "{operation} has {} answers", answers.len());
                let expected = CALLERS.iter().zip(answers).map(|((_, caller), answer)| (*caller, *answer));
                rows.push(Row { operation: operation.replace('`', ""), expected: expected.collect() });
            }
            _ => is_table = false,
        }
    }
    Ok(rows)
}

pub(crate) async fn every_operation_has_one_row_and_every_row_an_operation() -> Result<()> {
    let (rows, operations) = (rows()?, catalogue::operations()?);
    let named: BTreeSet<_> = rows.iter().map(|row| row.operation.clone()).collect();
    let missing: Vec<_> = operations.difference(&named).collect();
    let unknown: Vec<_> = named.difference(&operations).collect();
    assert!(
        missing.is_empty() && unknown.is_empty() && named.len() == rows.len(),
        "docs/authorisation.md has {} rows of {} operations; without a row: {missing:?}; not an operation: {unknown:?}",
        rows.len(),
        named.len(),
    );
    Ok(())
}

pub(crate) async fn p8_every_caller_gets_the_documented_answer_to_every_operation(
    world: World,
) -> Result<()> {
    let mut cast = Cast::new(world).await?;
    let mut differences = Vec::new();
    for Row { operation, expected } in rows()? {
        let stage = Stage::new(&mut cast).await.with_context(|| format!("before {operation}"))?;
        for (caller, expected) in expected {
            let answer = operations::perform(&mut cast, &stage, caller, &operation);
            let answer = answer.await.with_context(|| format!("{operation} as {caller:?}"))?;
            if answer != expected {
                differences.push(format!("{operation} as {caller:?}: {answer} instead of {expected}"));
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    Ok(())
}
