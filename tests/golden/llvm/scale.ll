define internal void @kernel.part0(ptr noalias %b0, ptr noalias %b1, ptr noalias %shared, ptr noalias %private, i64 %lo, i64 %hi) {
entry:
br label %L1
L1:
%v1 = phi i64 [ 0, %entry ], [ %n1, %L1 ]
%v10 = phi ptr [ %b0, %entry ], [ %v10n, %L1 ]
%v13 = phi ptr [ %b1, %entry ], [ %v13n, %L1 ]
%v2 = mul i64 %v1, -8
%v3 = add i64 %v2, 10
%v4 = icmp slt i64 %v3, 8
%v5 = select i1 %v4, i64 %v3, i64 8
%v6 = trunc i64 %v5 to i32
%v7 = insertelement <8 x i32> poison, i32 %v6, i64 0
%v8 = shufflevector <8 x i32> %v7, <8 x i32> poison, <8 x i32> zeroinitializer
%v9 = icmp slt <8 x i32> <i32 0, i32 1, i32 2, i32 3, i32 4, i32 5, i32 6, i32 7>, %v8
%v11 = call <8 x float> @llvm.masked.load.v8f32.p0(ptr %v10, i32 4, <8 x i1> %v9, <8 x float> zeroinitializer)
%v12 = fmul <8 x float> %v11, splat (float 0x4000000000000000)
call void @llvm.masked.store.v8f32.p0(<8 x float> %v12, ptr %v13, i32 4, <8 x i1> %v9)
%n1 = add nuw nsw i64 %v1, 1
%v10n = getelementptr i8, ptr %v10, i64 32
%v13n = getelementptr i8, ptr %v13, i64 32
%t14 = icmp slt i64 %n1, 2
br i1 %t14, label %L1, label %X14
X14:
ret void
}
define void @kernel(ptr %buffers, ptr %params, i64 %threads) {
entry:
%p0 = getelementptr ptr, ptr %buffers, i64 0
%b0 = load ptr, ptr %p0
%p1 = getelementptr ptr, ptr %buffers, i64 1
%b1 = load ptr, ptr %p1
%shared = getelementptr i8, ptr %buffers, i64 0
%private = getelementptr i8, ptr %shared, i64 0
call void @kernel.part0(ptr %b0, ptr %b1, ptr %shared, ptr %private, i64 0, i64 0)
ret void
}
declare <8 x float> @llvm.masked.load.v8f32.p0(ptr, i32, <8 x i1>, <8 x float>)
declare void @llvm.masked.store.v8f32.p0(<8 x float>, ptr, i32, <8 x i1>)
