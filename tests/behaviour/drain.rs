//! The drain of a gateway under load.
//!
//! `GODWIT_TEST_DRAIN=2000/10` sets the number of connections and the seconds of the drain.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use std::{io::Write as _, time::Duration};
use tests::{
    device::{Device, Wire},
    eventually,
    process::Process,
    system::{Distributed, Instance, System as _},
};
use tokio::time::{Instant, sleep};

/// The default number of connections, and the seconds of the drain. Half of the connections are at the draining gateway.
const DEFAULT_SIZE: (u32, u32) = (300, 5);
/// How long the gateway keeps accepting connections after SIGTERM.
const GRACE: Duration = Duration::from_secs(2);
/// Messages per second.
const RATE: u32 = 100;

pub(crate) async fn p9_a_draining_gateway_spreads_the_reconnects_and_loses_nothing() -> Result<()> {
    let (connections, seconds) = size()?;
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
    let leaving = connected(&mut system, connections, &load).await?;

    let gateway = system.instances("ws-gateway").next().context("there are two of each")?;
    let drained_after = check_drain(gateway, &gateways[0], seconds).await?;

    let report = report(&mut load, connections).await?;
    for violation in ["lost", "duplicated", "out_of_order", "failed"] {
        assert_eq!(report[violation], json!(0), "{violation}: {report}");
    }
    let count = |name: &str| report[name].as_u64().with_context(|| format!("no {name} in {report}"));
    let (reconnects, most) = (count("reconnects")?, count("most_reconnects_in_a_second")?);
    let line = format!(
        "{leaving} of {connections} devices left over {seconds} s: {reconnects} reconnects, at most {most} in one second \
         ({:.0} on average), {} messages acknowledged, lost 0, duplicated 0; the gateway ended after {drained_after:.1?}",
        leaving / f64::from(seconds),
        report["acked"]
    );
    let _ = writeln!(std::io::stderr(), "{line}");
    ensure!(reconnects as f64 >= leaving && reconnects as f64 <= leaving * 1.1 + 5.0, "{line}");
    // The bound allows for a busy machine, and is still far from a reconnect storm.
    ensure!(most as f64 <= leaving / 2.0, "{line}");
    Ok(())
}

fn size() -> Result<(u32, u32)> {
    let Ok(text) = std::env::var("GODWIT_TEST_DRAIN") else { return Ok(DEFAULT_SIZE) };
    let (connections, seconds) = text.split_once('/').context("GODWIT_TEST_DRAIN=2000/10")?;
    Ok((connections.parse()?, seconds.parse()?))
}

/// Sends SIGTERM, checks readiness and new connections during the drain, and returns the time until the process ended.
async fn check_drain(gateway: &mut Instance, address: &str, seconds: u32) -> Result<Duration> {
    let begun = Instant::now();
    gateway.process().signal("TERM")?;
    eventually("the gateway is not ready", async || {
        let (status, body) = gateway.readiness().await?;
        ensure!(status == 503 && body.contains("this instance is stopping"), "{status} {body}");
        Ok(())
    })
    .await?;
    ensure!(begun.elapsed() < GRACE, "it was not ready only after {:?}", begun.elapsed());
    Device::open(address, Wire::Proto).await.context("it refuses new connections during the grace period")?;
    eventually("the gateway refuses new connections", async || {
        ensure!(Device::open(address, Wire::Proto).await.is_err(), "it still accepts them");
        Ok(())
    })
    .await?;
    let closed = begun.elapsed();
    ensure!(closed >= GRACE.mul_f64(0.9), "it refused new connections after {closed:?} already");
    while gateway.process().try_ended()?.is_none() {
        ensure!(begun.elapsed() < Duration::from_secs((seconds + 30).into()), "it does not end");
        sleep(Duration::from_millis(20)).await;
    }
    let ended = begun.elapsed();
    ensure!(gateway.process().ended().await?.success(), "{}", gateway.process().output().join("\n"));
    Ok(ended)
}

/// Waits until all connections are open, and returns the number of those at the first gateway.
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
        ensure!(
            Instant::now() < deadline,
            "open: {open:?}; output of the load: {}",
            load.output().join("\n")
        );
        sleep(Duration::from_millis(50)).await;
    }
}

/// The report of the load generator. It comes after all messages in flight are acknowledged and all histories are read.
async fn report(load: &mut Process, connections: u32) -> Result<Value> {
    let deadline = Instant::now() + Duration::from_secs(60 + u64::from(connections) / 8);
    while load.try_ended()?.is_none() {
        ensure!(Instant::now() < deadline, "the load does not end; its output: {}", load.output().join("\n"));
        sleep(Duration::from_millis(50)).await;
    }
    let output = load.output();
    let line = output.iter().rev().find(|line| line.starts_with('{'));
    Ok(serde_json::from_str(
        line.with_context(|| format!("no report in the output: {}", output.join("\n")))?,
    )?)
}
