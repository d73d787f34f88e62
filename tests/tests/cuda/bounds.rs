//! Safe code can call [`Backend`]'s methods with any arguments: what does not fit the buffers is
//! refused before a kernel reads or writes.

use backend_api::{
    Backend, Binary, DType, Dest, Dests, Layout, Meta, Op, Precision, Result, Shape, Tensor, View,
};
use backend_cuda::{Cuda, CudaBuffer};
use recurrent_tests::devices::simulator;

fn layout(dims: &[usize]) -> Layout {
    Layout::contiguous(Shape::new(dims).unwrap())
}

fn into(device: &Cuda, count: usize, dims: &[usize]) -> Dests<CudaBuffer> {
    let buffer = Tensor::from_slice(device, &vec![0.0f32; count], &[count]).unwrap();
    let dest = (buffer.into_buffer().unwrap(), layout(dims));
    [Dest::Into(Box::new(dest))].into_iter().collect()
}

fn new(dims: &[usize], dtype: DType) -> Dests<CudaBuffer> {
    let meta = Meta::new(Shape::new(dims).unwrap(), dtype);
    [Dest::New(meta)].into_iter().collect()
}

#[test]
fn what_does_not_fit_is_refused() {
    let _sim = simulator();
    let device = Cuda::new(0).unwrap();
    let x = Tensor::from_slice(&device, &[1.0f32; 6], &[2, 3]).unwrap();
    let far = View {
        buffer: x.buffer().unwrap(),
        layout: &layout(&[1 << 20, 3]),
        dtype: DType::F32,
    };
    let other_type = View {
        dtype: DType::F64,
        ..x.view().unwrap()
    };
    let matmul = Op::MatMul {
        alpha: 1.0,
        precision: Precision::Exact,
    };
    let message = |op: &Op, ins: &[View<'_, CudaBuffer>], outs| {
        device.run(op, ins, outs).unwrap_err().to_string()
    };
    let add = Op::Binary(Binary::Add);
    assert_eq!(
        message(&Op::Copy, &[far], new(&[1 << 20, 3], DType::F32)),
        "copy: buffer has 6 elements, too few for the layout [1048576, 3] strides [3, 1] offset 0"
    );
    assert_eq!(
        message(&Op::Copy, &[other_type], new(&[2, 3], DType::F64)),
        "copy: buffer is f32, but f64 is needed"
    );
    assert_eq!(
        message(
            &add,
            &[x.view().unwrap(), x.view().unwrap()],
            new(&[2, 4], DType::F32)
        ),
        "add: result is [2, 4], but [2, 3] is needed"
    );
    assert_eq!(
        message(
            &add,
            &[x.view().unwrap(), x.view().unwrap()],
            new(&[2, 3], DType::Bool)
        ),
        "add: result is bool, but f32 is needed"
    );
    assert_eq!(
        message(
            &add,
            &[x.view().unwrap(), x.view().unwrap()],
            into(&device, 5, &[2, 3])
        ),
        "add: buffer has 5 elements, too few for the layout [2, 3] strides [3, 1] offset 0"
    );
    assert_eq!(
        message(&add, &[x.view().unwrap(), x.view().unwrap()], Dests::new()),
        "add: number of results is 0, but must be 1"
    );
    assert_eq!(
        message(
            &matmul,
            &[x.view().unwrap(), x.view().unwrap()],
            new(&[2, 3], DType::F32)
        ),
        "matmul: a is [2, 3], but b is [2, 3]"
    );
    let ones = || Tensor::from_slice(&device, &[1.0f32; 6], &[6]).unwrap();
    let sum =
        |at: &[usize], src| device.accumulate(ones().into_buffer().unwrap(), &layout(at), src);
    assert!(sum(&[7], x.view().unwrap()).is_err());
    assert!(sum(&[2, 3], far).is_err());
    assert!(sum(&[1, 3], x.view().unwrap()).is_err());
    assert!(sum(&[2, 3], x.view().unwrap()).is_ok());
    assert!(device.download(far, &mut [0; 12]).is_err());
    assert!(device.download(x.view().unwrap(), &mut [0; 12]).is_err());
    let meta = Meta::new(Shape::new(&[1 << 20]).unwrap(), DType::F32);
    assert!(device.upload(&[0; 4], meta).is_err());
    device.synchronize().unwrap();
    assert_eq!(x.to_vec::<f32>().unwrap(), [1.0; 6]);
}

#[test]
fn a_tensor_fits_its_buffer() -> Result<()> {
    let _sim = simulator();
    let device = Cuda::new(0)?;
    let x = Tensor::from_slice(&device, &[1.0f32; 6], &[2, 3])?;
    let of = |dims: &[usize], dtype| {
        Tensor::from_parts(&device, x.buffer().unwrap().clone(), layout(dims), dtype)
    };
    assert!(of(&[7], DType::F32).is_err());
    assert!(of(&[3], DType::F64).is_err());
    assert_eq!(of(&[3, 2], DType::F32)?.to_vec::<f32>()?, [1.0; 6]);
    Ok(())
}
