//! How the devices of a gateway leave it when it stops, and what the load generator says of that.
//!
//! `GODWIT_TEST_DRAIN=2000/10` takes so many connections and so many seconds.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use std::{io::Write as _, time::Duration};
use tests::{
    device::{Device, Wire},
    eventually,
    process::Process,
    system::{Distributed, System as _},
};
use tokio::time::{Instant, sleep};

/// Connections, and seconds for half of them to leave.
const USUAL: (u32, u32) = (300, 5);
/// It goes on for so long after it was told to stop.
const GRACE: Duration = Duration::from_secs(2);
/// Messages per second.
const RATE: u32 = 100;

pub(crate) async fn p9_the_devices_of_a_gateway_leave_without_a_storm_and_nothing_is_lost() -> Result<()> {
    let (connections, seconds) = match std::env::var("GODWIT_TEST_DRAIN") {
        Ok(text) => {
            let (connections, seconds) = text.split_once('/').context("GODWIT_TEST_DRAIN=2000/10")?;
            (connections.parse()?, seconds.parse()?)
        }
        Err(_) => USUAL,
    };
    let (drain, grace) =
        (format!("gateway.drain={seconds}s"), format!("gateway.drain_grace={}s", GRACE.as_secs()));
    let mut system = Distributed::start(&[&drain, &grace]).await?;
    let gateways = system.gateways().to_vec();
    let load = format!(
        "load pair --json --pairs {} --rate {RATE} --seconds {} --url http://{} --url http://{}",
        connections / 2,
        2 * seconds + 5,
        gateways[0],
        gateways[1]
    );
    let mut load = Process::start("godwit-cli", load.split(' '))?;
    let leaves = connected(&mut system, connections, &load).await?;

    let gateway = system.instances("ws-gateway").next().context("there are two of each")?;
    let begun = Instant::now();
    gateway.process().signal("TERM")?;
    eventually("it says that it stops", async || {
        let (status, body) = gateway.readiness().await?;
        ensure!(status == 503 && body.contains("this instance is stopping"), "{status} {body}");
        Ok(())
    })
    .await?;
    ensure!(begun.elapsed() < GRACE, "it said so after {:?}", begun.elapsed());
    // Whoever does not know yet still gets in; then nobody does.
    Device::open(&gateways[0], Wire::Proto).await.context("it does not wait until others have noticed")?;
    eventually("it takes nobody any more", async || {
        ensure!(Device::open(&gateways[0], Wire::Proto).await.is_err(), "it still does");
        Ok(())
    })
    .await?;
    let closed = begun.elapsed();
    ensure!(closed >= GRACE.mul_f64(0.9), "it took nobody any more after {closed:?}");
    while gateway.process().try_ended()?.is_none() {
        ensure!(begun.elapsed() < Duration::from_secs((seconds + 30).into()), "it does not end");
        sleep(Duration::from_millis(20)).await;
    }
    let ended = begun.elapsed();
    ensure!(gateway.process().ended().await?.success(), "{}", gateway.process().output().join("\n"));

    let report = report(&mut load, connections).await?;
    for broken in ["lost", "duplicated", "out_of_order", "failed"] {
        assert_eq!(report[broken], json!(0), "{broken}: {report}");
    }
    let count = |name: &str| report[name].as_u64().with_context(|| format!("no {name} in {report}"));
    let (reconnects, most) = (count("reconnects")?, count("most_reconnects_in_a_second")?);
    let line = format!(
        "{leaves} of {connections} devices left over {seconds} s: {reconnects} reconnects, at most {most} in one second \
         ({:.0} on average), {} messages acknowledged, lost 0, doubled 0; the gateway ended after {ended:.1?}",
        leaves / f64::from(seconds),
        report["acked"]
    );
    let _ = writeln!(std::io::stderr(), "{line}");
    ensure!(reconnects as f64 >= leaves && reconnects as f64 <= leaves * 1.1 + 5.0, "{line}");
    // Even on a machine that is busy with other things it is far from all at once.
    ensure!(most as f64 <= leaves / 2.0, "{line}");
    Ok(())
}

/// Waits until so many connections are open; gives how many of them the first gateway has.
async fn connected(system: &mut Distributed, connections: u32, load: &Process) -> Result<f64> {
    let deadline = Instant::now() + Duration::from_secs(60 + u64::from(connections) / 10);
    loop {
        let mut open = Vec::new();
        for gateway in system.instances("ws-gateway") {
            open.push(gateway.metric("godwit_ws_gateway_connections").await.unwrap_or(0.0));
        }
        if open.iter().sum::<f64>() >= f64::from(connections) {
            return Ok(open[0]);
        }
        ensure!(Instant::now() < deadline, "open: {open:?}; the load said: {}", load.output().join("\n"));
        sleep(Duration::from_millis(50)).await;
    }
}

/// What the load generator says at its end. It waits for what is under way and reads everything back first.
async fn report(load: &mut Process, connections: u32) -> Result<Value> {
    let deadline = Instant::now() + Duration::from_secs(60 + u64::from(connections) / 8);
    while load.try_ended()?.is_none() {
        ensure!(Instant::now() < deadline, "the load does not end; it said: {}", load.output().join("\n"));
        sleep(Duration::from_millis(50)).await;
    }
    let said = load.output();
    let line = said.iter().rev().find(|line| line.starts_with('{'));
    Ok(serde_json::from_str(line.with_context(|| format!("the load said: {}", said.join("\n")))?)?)
}
