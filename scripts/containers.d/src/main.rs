//! Runs a command with Kafka, PostgreSQL and Redis in containers, and passes their addresses in the variables of `scripts/servers env`.
//!
//! usage: containers LABEL COMMAND [ARGUMENT...]. The containers carry the label `godwit.tests=LABEL`, by which a script can remove them
//! if this program is killed. The exit code is the command's.

use anyhow::{Context as _, Result};
use std::{env, process::ExitCode, time::Instant};
use testcontainers_modules::{
    kafka::apache::{KAFKA_PORT, Kafka},
    postgres::Postgres,
    redis::{REDIS_PORT, Redis},
    testcontainers::{
        ContainerAsync, ContainerRequest, Image, ImageExt as _, core::ContainerPort,
        runners::AsyncRunner as _,
    },
};
use tokio::process::Command;

/// Image tags, as in `deploy/compose.yaml`.
const VERSIONS: [&str; 3] = ["4.3.1", "16", "7"];
const POSTGRES_PORT: u16 = 5432;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode> {
    let mut arguments = env::args().skip(1);
    let label = arguments.next().context("usage: containers LABEL COMMAND [ARGUMENT...]")?;
    let mut command = Command::new(arguments.next().context("which command?")?);
    command.args(arguments);

    let begun = Instant::now();
    let [kafka, postgres, redis] = VERSIONS;
    let kafka = Kafka::default().with_jvm_image().with_tag(kafka);
    // The suite runs several systems at once, each with its own connections.
    let postgres =
        Postgres::default().with_tag(postgres).with_cmd(["-c", "fsync=off", "-c", "max_connections=300"]);
    let redis = Redis::default().with_tag(redis);
    let (kafka, postgres, redis) =
        tokio::try_join!(start(kafka, &label), start(postgres, &label), start(redis, &label))?;
    eprintln!(
        "Kafka, PostgreSQL and Redis answer after {:.1} s, in containers",
        begun.elapsed().as_secs_f32()
    );

    command
        .env("GODWIT_TEST_KAFKA", address(&kafka, KAFKA_PORT).await?)
        .env(
            "GODWIT_TEST_POSTGRES",
            format!("postgres://postgres:postgres@{}/postgres", address(&postgres, POSTGRES_PORT).await?),
        )
        .env("GODWIT_TEST_REDIS", format!("redis://{}", address(&redis, REDIS_PORT).await?));
    let status = command.status().await.context("run the command")?;
    tokio::try_join!(kafka.rm(), postgres.rm(), redis.rm()).context("remove the containers")?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1).into())
}

async fn start<I: Image>(image: impl Into<ContainerRequest<I>>, label: &str) -> Result<ContainerAsync<I>> {
    let request = image.into().with_label("godwit.tests", label);
    let name = request.descriptor();
    request.start().await.with_context(|| format!("start {name}"))
}

/// The address of a container's port on the host.
async fn address<I: Image>(container: &ContainerAsync<I>, port: impl Into<ContainerPort>) -> Result<String> {
    Ok(format!("127.0.0.1:{}", container.get_host_port_ipv4(port).await?))
}
