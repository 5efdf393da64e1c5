//! The fake keeps what the real server keeps.

#[tokio::test]
async fn the_fake_keeps_the_contract() {
    let (client, _fake) = client::fake::FakeApi::start().await;
    client::contract::all(&client).await;
}
