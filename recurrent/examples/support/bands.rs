//! A plot of forecasts with bands.

use std::path::Path;

use plotters::prelude::*;

use super::support::Error;

/// Draws the truth over days, and of each day the quantiles low, middle and high of its forecast.
pub fn draw(path: &Path, unit: &str, truth: &[f64], forecasts: &[[f64; 3]]) -> Result<(), Error> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let all = || truth.iter().chain(forecasts.iter().flatten()).copied();
    let range = all().fold(f64::MAX, f64::min) - 1.0..all().fold(f64::MIN, f64::max) + 1.0;
    let root = SVGBackend::new(path, (1000, 500)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .margin(10)
        .x_label_area_size(40)
        .y_label_area_size(50)
        .build_cartesian_2d(0..truth.len(), range)?;
    chart
        .configure_mesh()
        .x_desc("day of the last year")
        .y_desc(unit)
        .draw()?;
    let quantile = |i: usize| {
        forecasts
            .iter()
            .map(move |forecast| forecast[i])
            .enumerate()
    };
    let outline: Vec<_> = quantile(0).chain(quantile(2).rev()).collect();
    let band = BLUE.mix(0.2);
    chart
        .draw_series([Polygon::new(outline, band)])?
        .label("8 of 10 days, as forecast")
        .legend(move |(x, y)| Rectangle::new([(x, y - 4), (x + 20, y + 4)], band.filled()));
    chart
        .draw_series(LineSeries::new(quantile(1), &BLUE))?
        .label("median, as forecast")
        .legend(|(x, y)| PathElement::new([(x, y), (x + 20, y)], BLUE));
    chart
        .draw_series(LineSeries::new(truth.iter().copied().enumerate(), &BLACK))?
        .label("truth")
        .legend(|(x, y)| PathElement::new([(x, y), (x + 20, y)], BLACK));
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .draw()?;
    root.present()?;
    Ok(())
}
