//! Dead letters.

use super::*;
use crate::dead_letters::header;

#[tokio::test(start_paused = true)]
async fn a_rejected_record_is_committed_only_after_its_dead_letter_is_confirmed() {
    let (_, handled) = mpsc::channel(1);
    let handler = tower::service_fn(|batch: Batch| async move {
        let reject = |index| Rejected { index, reason: "unreadable".into() };
        Ok::<_, HandlerError>(Outcome { rejected: (0..batch.records.len()).map(reject).collect() })
    });
    let batches = start(handled, |source| Consumer::batches(source, handler).config(eager())).await;
    let (_, handled) = mpsc::channel(1);
    let handler = tower::service_fn(|_: Message| async { Err::<(), _>(HandlerError::reject("unreadable")) });
    let records = start(handled, |source| Consumer::records(source, handler).config(eager())).await;
    for consumer in [batches, records] {
        consumer.feed(1);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(consumer.commits.lock().unwrap().is_empty());
        consumer.sink.limit.store(1_000, SeqCst);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(consumer.sink.letters.lock().unwrap().len(), 1);
        assert_eq!(consumer.stop().await, [vec![(partition(), 2)]]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_has_the_message_of_a_panic() {
    let (_, handled) = mpsc::channel(1);
    let handler = tower::service_fn(|message: Message| async move {
        if message.record.offset > 0 {
            panic!("no room for {}", message.record.offset)
        }
        Ok::<_, HandlerError>(())
    });
    let retry = RetryPolicy { attempts: std::num::NonZeroU32::new(2), ..RetryPolicy::default() };
    let config = ConsumerConfig { retry, ..eager() };
    let consumer = start(handled, |source| Consumer::records(source, handler).config(config)).await;
    consumer.sink.limit.store(1_000, SeqCst);
    consumer.feed(7);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let letters = std::mem::take(&mut *consumer.sink.letters.lock().unwrap());
    let reason =
        letters[0].headers.iter().find(|(name, _)| name == header::REASON).map(|(_, value)| &value[..]);
    assert_eq!(reason, Some(&b"the handler panicked: no room for 7"[..]));
    consumer.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_record_of_any_size_can_be_dead_lettered() {
    let sink = Arc::new(DeadLetterSink::default());
    sink.limit.store(10_000, SeqCst);
    let dead_letters = DeadLetters::new(Arc::clone(&sink) as Arc<dyn Producer>, "dead");
    let large = |bytes: usize| bytes::Bytes::from(vec![b'x'; bytes]);
    let TopicPartition { topic, partition } = partition();
    let small = Record {
        topic,
        partition,
        offset: 9,
        key: "key".into(),
        payload: "payload".into(),
        headers: vec![("name".into(), "value".into())],
        timestamp_ms: 0,
    };
    let records = [
        (Record { payload: large(20_000), ..small.clone() }, "short".to_owned()),
        (Record { headers: vec![("name".into(), large(20_000))], ..small.clone() }, "short".to_owned()),
        (Record { key: large(20_000), ..small.clone() }, "short".to_owned()),
        // The reason is cut at a character boundary.
        (small, format!("a{}", "ß".repeat(10_000))),
    ];
    for (record, reason) in &records {
        let rejected = [Rejected { index: 0, reason: reason.clone() }];
        let records = std::slice::from_ref(record);
        let written = dead_letters.write(records, &rejected, 1, crate::Backoff::default());
        tokio::time::timeout(Duration::from_secs(60), written).await.expect("it ends");
    }
    let value = |letter: &ProducerRecord, name: &str| {
        let header = letter.headers.iter().find(|(header, _)| header == name);
        header.map(|(_, value)| String::from_utf8(value.to_vec()).expect("it is text"))
    };
    let letters = sink.letters.lock().unwrap();
    let omitted: Vec<_> = letters.iter().map(|letter| value(letter, header::OMITTED)).collect();
    let expected = [Some("20000"), Some("20014"), Some("20016"), None];
    assert_eq!(omitted, expected.map(|bytes| bytes.map(str::to_owned)));
    assert_eq!((&letters[0].key[..], value(&letters[0], "name").as_deref()), (&b"key"[..], Some("value")));
    assert_eq!(value(&letters[3], header::REASON).unwrap().len(), 8 * 1024 - 1);
    for letter in &*letters {
        assert_eq!(value(letter, header::OFFSET).as_deref(), Some("9"));
    }
}
