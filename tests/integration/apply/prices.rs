//! Prices: another figure is another price, and what was is history.

use anyhow::ensure;
use nexus_tests::Result;
use serde_json::Value;

use super::Declared;

const FIGURES: &str = "input_micros_per_million: 5, output_micros_per_million: 7";

async fn prices(declared: &Declared) -> Result<Vec<Value>> {
    let listed = declared.hub.client()?.get("/prices").await?.expect(200)?;
    Ok(listed.json["data"].as_array().cloned().unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn another_figure_is_another_price_from_now_on() -> Result<()> {
    let file = format!("prices:\n- {{provider: echo, model_name: echo, {FIGURES}}}\n");
    let declared = Declared::start(&file).await?;
    let (new, same) = (["+ price echo/echo", "= 0 unchanged"], ["= 1 unchanged"]);
    assert_eq!(declared.lines(&[]).await?, new);
    assert_eq!(declared.lines(&[]).await?, same);
    declared.write(&file.replace(": 7", ": 8"))?;
    assert_eq!(declared.lines(&[]).await?, new);
    assert_eq!(declared.lines(&["--prune"]).await?, same);
    let all = prices(&declared).await?;
    let costs = all
        .iter()
        .map(|price| price["output_micros_per_million"].as_u64());
    assert_eq!(costs.collect::<Vec<_>>(), [Some(7), Some(8)], "both stay");
    // What is left out has its default: the currency of the others, here USD.
    ensure!(
        all.iter().all(|price| price["currency"] == "USD"),
        "{all:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_price_with_a_date_is_found_by_it() -> Result<()> {
    let of = |from: &str| format!("- {{model_name: echo, {FIGURES}, valid_from: {from}}}\n");
    let (past, future) = (of("2026-01-01T00:00:00Z"), of("2099-01-01T02:00:00+02:00"));
    let declared = Declared::start(&format!("prices:\n{past}{future}")).await?;
    let lines = declared.lines(&[]).await?;
    assert_eq!(
        lines,
        ["+ price any/echo", "+ price any/echo", "= 0 unchanged"]
    );
    assert_eq!(declared.lines(&[]).await?, ["= 2 unchanged"]);
    let all = prices(&declared).await?;
    let begins = |moment: u64| all.iter().any(|price| price["valid_from_ms"] == moment);
    ensure!(begins(4_070_908_800_000), "{all:?}");
    // Of two that begin at once the one that was entered later holds.
    declared.write(&format!("prices:\n{past}{}", future.replace(": 7", ": 9")))?;
    let lines = declared.lines(&[]).await?;
    assert_eq!(lines, ["+ price any/echo", "= 1 unchanged"]);
    assert_eq!(declared.lines(&[]).await?, ["= 2 unchanged"]);
    Ok(())
}
