//! lapin as its own example of publishing and consuming uses it: one connection, each publish
//! awaited with its confirm before the next, each message acked by itself. What a program gets that
//! does no more than that.
//!
//!     bench_lapin [measure=throughput|latency|connect] [rate=PER_SECOND] [body=BYTES] [backlog=N]
//!                 [prefetch=N] [seconds=S] [warmup=S]
//!
//! The same messages, queue and counting as those of `librabbitmq.c` and `bench.h`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer};
use tokio::sync::{Notify, mpsc};

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Result<T> = std::result::Result<T, Failure>;

const CAPACITY: i32 = 100_000;
const EXPIRY_MS: i32 = 60_000;
const SEQ_KEY: &[u8] = b"\xa3seq\xcf";

// --- arguments ---------------------------------------------------------------------------------

struct Options {
    url: String,
    measure: String,
    seconds: f64,
    warmup: f64,
    backlog: u64,
    prefetch: u16,
    body: usize,
    rate: f64,
}

fn options() -> Result<Options> {
    let mut values = BTreeMap::from(
        [
            ("measure", "throughput"),
            ("seconds", "5"),
            ("warmup", "1"),
            ("backlog", "50000"),
            ("prefetch", "1000"),
            ("body", "200"),
            ("rate", "0"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    for argument in std::env::args().skip(1) {
        let (name, value) = argument.split_once('=').unwrap_or((&argument, ""));
        match values.get_mut(name) {
            Some(place) => value.clone_into(place),
            None => return Err(format!("there is no argument {argument}").into()),
        }
    }
    // By the environment, since it holds a password.
    let url = std::env::var("CHANNEL_LAYER_TEST_AMQP")
        .map_err(|_| "CHANNEL_LAYER_TEST_AMQP is not set: it names the broker")?;
    Ok(Options {
        url,
        measure: values["measure"].clone(),
        seconds: values["seconds"].parse()?,
        warmup: values["warmup"].parse()?,
        backlog: values["backlog"].parse()?,
        prefetch: values["prefetch"].parse()?,
        body: values["body"].parse()?,
        rate: values["rate"].parse()?,
    })
}

// --- message -----------------------------------------------------------------------------------

/// The map of `bench.h` and the recipient, as the layer writes it; and where its number stands.
fn message(body: usize, queue: &str) -> Result<(Vec<u8>, usize)> {
    let mut bytes = b"\x84\xa4type\xadbench.message".to_vec();
    bytes.extend_from_slice(SEQ_KEY);
    let seq_at = bytes.len();
    bytes.extend_from_slice(b"\0\0\0\0\0\0\0\0\xa4text");
    let left = body
        .checked_sub(bytes.len() + 2)
        .ok_or("a body is larger than its keys")?;
    let text = if left <= 0xff {
        bytes.extend([0xd9, u8::try_from(left)?]);
        left
    } else if left - 1 <= 0xffff {
        bytes.push(0xda);
        bytes.extend(u16::try_from(left - 1)?.to_be_bytes());
        left - 1
    } else {
        bytes.push(0xdb);
        bytes.extend(u32::try_from(left - 3)?.to_be_bytes());
        left - 3
    };
    bytes.resize(bytes.len() + text, b'x');
    let channel = format!("{queue}!benchbenchbe");
    bytes.extend_from_slice(b"\xb0__asgi_channel__\xd9");
    bytes.push(u8::try_from(channel.len())?);
    bytes.extend_from_slice(channel.as_bytes());
    Ok((bytes, seq_at))
}

fn seq_of(data: &[u8]) -> Result<u64> {
    let at = data
        .windows(SEQ_KEY.len())
        .position(|window| window == SEQ_KEY)
        .ok_or("a message arrived that this program did not send")?
        + SEQ_KEY.len();
    let number = data.get(at..at + 8).ok_or("a message arrived cut short")?;
    Ok(u64::from_be_bytes(number.try_into()?))
}

// --- connection --------------------------------------------------------------------------------

struct Link {
    connection: Connection,
    publisher: Channel,
    consumer: Consumer,
    queue: String,
}

async fn connect(options: &Options) -> Result<Link> {
    let connection = Connection::connect(&options.url, ConnectionProperties::default()).await?;
    let publisher = connection.create_channel().await?;
    let consuming = connection.create_channel().await?;
    let queue = format!(
        "channels_{:012x}",
        std::time::UNIX_EPOCH.elapsed()?.as_nanos() & 0xffff_ffff_ffff
    );
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(CAPACITY));
    arguments.insert(
        "x-overflow".into(),
        AMQPValue::LongString("reject-publish".into()),
    );
    arguments.insert("x-message-ttl".into(), AMQPValue::LongInt(EXPIRY_MS));
    let declare = QueueDeclareOptions {
        exclusive: true,
        ..QueueDeclareOptions::default()
    };
    consuming
        .queue_declare(queue.as_str().into(), declare, arguments)
        .await?;
    consuming
        .basic_qos(options.prefetch, BasicQosOptions::default())
        .await?;
    let consumer = consuming
        .basic_consume(
            queue.as_str().into(),
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await?;
    publisher
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    Ok(Link {
        connection,
        publisher,
        consumer,
        queue,
    })
}

/// Once all is measured and said. lapin closes the AMQP channels that were dropped by itself at the
/// same time, and now and then refuses to close one twice.
async fn close(connection: &Connection) {
    if let Err(error) = connection.close(200, "".into()).await {
        eprintln!("bench_lapin: the connection did not close in order: {error}");
    }
}

async fn publish(
    channel: &Channel,
    queue: &str,
    body: &[u8],
    seq: u64,
) -> Result<impl Future<Output = lapin::Result<Confirmation>> + Send + use<>> {
    let properties = BasicProperties::default()
        .with_delivery_mode(1)
        .with_expiration(EXPIRY_MS.to_string().into())
        .with_message_id(seq.to_string().into());
    let publish = BasicPublishOptions {
        mandatory: true,
        ..BasicPublishOptions::default()
    };
    Ok(channel
        .basic_publish("".into(), queue.into(), publish, body, properties)
        .await?)
}

fn confirmed(confirmation: &Confirmation) -> Result<()> {
    match confirmation {
        Confirmation::Ack(None) => Ok(()),
        other => Err(format!("the broker did not take a message: {other:?}").into()),
    }
}

// --- receiving ---------------------------------------------------------------------------------

/// What the receiving task tells the others.
#[derive(Default)]
struct Received {
    count: AtomicU64,
    more: Notify,
}

/// Receives messages in order until `end` are there, if there is an end; `arrived` is told each.
async fn receive(
    mut consumer: Consumer,
    received: Arc<Received>,
    mut arrived: impl FnMut(u64),
) -> Result<()> {
    let mut expected = 0;
    while let Some(delivery) = consumer.next().await {
        let delivery = delivery?;
        let seq = seq_of(&delivery.data)?;
        if seq != expected {
            return Err(format!("message {seq} arrived where {expected} was due").into());
        }
        expected += 1;
        arrived(seq);
        received.count.store(expected, Ordering::SeqCst);
        received.more.notify_one();
        delivery.ack(BasicAckOptions::default()).await?;
    }
    Err("the broker ended the consumer".into())
}

impl Received {
    async fn at_least(&self, count: u64) {
        while self.count.load(Ordering::SeqCst) < count {
            self.more.notified().await;
        }
    }
}

// --- what is measured --------------------------------------------------------------------------

/// Processor seconds of this process. In steps of 10 ms, which is what the kernel counts here.
fn cpu() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .ok_or("/proc/self/stat is not as it should be")?
        .1
        .split_whitespace()
        .collect();
    let ticks = |index: usize| -> Result<f64> {
        Ok(fields
            .get(index)
            .ok_or("/proc/self/stat is short")?
            .parse()?)
    };
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}

async fn throughput(options: Options) -> Result<()> {
    let link = connect(&options).await?;
    let (mut body, seq_at) = message(options.body, &link.queue)?;
    let received = Arc::new(Received::default());
    let confirms = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let consuming = tokio::spawn(receive(link.consumer, Arc::clone(&received), |_| ()));
    let publishing = tokio::spawn({
        let (received, stop) = (Arc::clone(&received), Arc::clone(&stop));
        let (channel, queue, confirms) = (link.publisher, link.queue, Arc::clone(&confirms));
        async move {
            let mut seq: u64 = 0;
            while !stop.load(Ordering::Relaxed) {
                received
                    .at_least((seq + 1).saturating_sub(options.backlog))
                    .await;
                body[seq_at..seq_at + 8].copy_from_slice(&seq.to_be_bytes());
                confirmed(&publish(&channel, &queue, &body, seq).await?.await?)?;
                seq += 1;
                confirms.store(seq, Ordering::SeqCst);
            }
            Ok::<u64, Failure>(seq)
        }
    });

    // Both confirmed and received: either comes in order, so the lower of the two counts.
    let complete = || {
        let received = received.count.load(Ordering::SeqCst);
        confirms.load(Ordering::SeqCst).min(received)
    };
    tokio::time::sleep(Duration::from_secs_f64(options.warmup)).await;
    let (start, first, cpu_before) = (Instant::now(), complete(), cpu()?);
    tokio::time::sleep(Duration::from_secs_f64(options.seconds)).await;
    let messages = complete() - first;
    let (seconds, cpu_seconds) = (start.elapsed().as_secs_f64(), cpu()? - cpu_before);
    stop.store(true, Ordering::Relaxed);
    let sent = publishing.await??;
    tokio::select! {
        ended = consuming => ended??,
        () = received.at_least(sent) => (),
    }
    if messages == 0 || complete() != sent {
        return Err(format!("of {sent} messages {} came through", complete()).into());
    }
    let per_second = messages as f64 / seconds;
    println!(
        "{{\"seconds\": {seconds:.3}, \"messages\": {messages}, \"per_second\": {per_second:.1}, \
         \"mb_per_second\": {:.2}, \"cpu_us_per_message\": {:.2}}}",
        per_second * options.body as f64 / 1e6,
        cpu_seconds * 1e6 / messages as f64,
    );
    close(&link.connection).await;
    Ok(())
}

fn print_latency(mut us: Vec<f64>, more: &str) -> Result<()> {
    us.sort_by(f64::total_cmp);
    let last = us
        .last()
        .ok_or("no message arrived in the time that was measured")?;
    // Nearest rank, as bench.h has it.
    let percentile =
        |percent: f64| us[((percent / 100.0 * us.len() as f64).ceil() as usize).max(1) - 1];
    println!(
        "{{\"messages\": {}, \"p50_us\": {:.1}, \"p99_us\": {:.1}, \"p999_us\": {:.1}, \
         \"max_us\": {last:.1}{more}}}",
        us.len(),
        percentile(50.0),
        percentile(99.0),
        percentile(99.9),
    );
    Ok(())
}

/// One message at a time; the next is sent when the last was confirmed and has arrived.
async fn latency_at_rest(options: Options) -> Result<()> {
    let link = connect(&options).await?;
    let (mut body, seq_at) = message(options.body, &link.queue)?;
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    let consuming = tokio::spawn(async move {
        let received = Arc::new(Received::default());
        let told = receive(link.consumer, received, |_| {
            _ = arrived.send(Instant::now())
        });
        // The other task hears of it by the end of the channel.
        if let Err(failure) = told.await {
            eprintln!("bench_lapin: {failure}");
        }
    });
    let begin = Instant::now() + Duration::from_secs_f64(options.warmup);
    let end = begin + Duration::from_secs_f64(options.seconds);
    let mut samples = Vec::new();
    for seq in 0_u64.. {
        body[seq_at..seq_at + 8].copy_from_slice(&seq.to_be_bytes());
        let sent = Instant::now();
        if sent >= end {
            break;
        }
        confirmed(
            &publish(&link.publisher, &link.queue, &body, seq)
                .await?
                .await?,
        )?;
        let at = arrivals.recv().await.ok_or("the consumer failed")?;
        if sent >= begin {
            samples.push((at - sent).as_secs_f64() * 1e6);
        }
    }
    consuming.abort();
    print_latency(samples, "")?;
    close(&link.connection).await;
    Ok(())
}

/// By the clock, from the time that a message was due.
async fn latency_at_rate(options: Options) -> Result<()> {
    let link = connect(&options).await?;
    let (mut body, seq_at) = message(options.body, &link.queue)?;
    let first = (options.warmup * options.rate) as u64;
    let end = ((options.warmup + options.seconds) * options.rate) as u64;
    let start = Instant::now() + Duration::from_millis(10);
    let due = move |seq: u64| start + Duration::from_secs_f64(seq as f64 / options.rate);
    let received = Arc::new(Received::default());
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    let consuming = tokio::spawn(receive(link.consumer, Arc::clone(&received), move |seq| {
        if seq >= first {
            let late = Instant::now().saturating_duration_since(due(seq));
            _ = arrived.send(late.as_secs_f64() * 1e6);
        }
    }));
    let (sent, mut to_confirm) = mpsc::unbounded_channel();
    let confirming = tokio::spawn(async move {
        while let Some(confirm) = to_confirm.recv().await {
            confirmed(&confirm.await?)?;
        }
        Ok::<(), Failure>(())
    });
    // By a thread that sleeps, since tokio's timer has steps of a millisecond.
    let (tick, mut clock) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for seq in 0..end {
            std::thread::sleep(due(seq).saturating_duration_since(Instant::now()));
            if tick.send(()).is_err() {
                return; // the program ends
            }
        }
    });
    for seq in 0..end {
        clock.recv().await.ok_or("the clock has stopped")?;
        body[seq_at..seq_at + 8].copy_from_slice(&seq.to_be_bytes());
        sent.send(publish(&link.publisher, &link.queue, &body, seq).await?)
            .map_err(|_| "a confirm failed")?;
    }
    drop(sent);
    confirming.await??;
    tokio::select! {
        ended = consuming => ended??,
        () = received.at_least(end) => (),
    }
    let mut samples = Vec::new();
    while let Ok(sample) = arrivals.try_recv() {
        samples.push(sample);
    }
    print_latency(samples, &format!(", \"rate\": {:.1}", options.rate))?;
    close(&link.connection).await;
    Ok(())
}

async fn connect_again_and_again(options: Options) -> Result<()> {
    let mut ms = Vec::new();
    // The first meets cold files and caches.
    connect(&options)
        .await?
        .connection
        .close(200, "".into())
        .await?;
    let end = Instant::now() + Duration::from_secs_f64(options.seconds);
    while ms.len() < 5 || (Instant::now() < end && ms.len() < 100) {
        let start = Instant::now();
        let link = connect(&options).await?;
        ms.push(start.elapsed().as_secs_f64() * 1e3);
        link.connection.close(200, "".into()).await?;
    }
    ms.sort_by(f64::total_cmp);
    println!(
        "{{\"connections\": {}, \"median_ms\": {:.3}, \"max_ms\": {:.3}}}",
        ms.len(),
        ms[ms.len().div_ceil(2) - 1],
        ms[ms.len() - 1],
    );
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = options()?;
    // Whatever hangs, a run has an end, and it is a failure.
    let limit = Duration::from_secs_f64(options.seconds + options.warmup + 60.0);
    let run = async {
        match options.measure.as_str() {
            "throughput" => throughput(options).await,
            "latency" if options.rate > 0.0 => latency_at_rate(options).await,
            "latency" => latency_at_rest(options).await,
            "connect" => connect_again_and_again(options).await,
            other => Err(format!("measure={other}: throughput, latency or connect").into()),
        }
    };
    tokio::time::timeout(limit, run).await?
}
