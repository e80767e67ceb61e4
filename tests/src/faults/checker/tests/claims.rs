//! The receiver's seq against what devices had.

use super::*;

#[test]
fn p5_a_number_that_counts_what_the_device_lacks_has_lied() {
    // The phone was delivered the direct message as the sixth change. The tablet believes to have six, before it has it.
    expect([(Kind::Lied, 1)], |ledger, _| seen(ledger, TABLET).insert(5, complete(6)));
    expect([], |ledger, _| seen(ledger, TABLET).insert(5, complete(5)));
    expect([], |ledger, _| seen(ledger, TABLET).insert(5, Seen::Complete { epoch: 2, seq: 6, at: 1 }));
}
