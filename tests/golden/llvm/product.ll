define internal void @kernel.part0(ptr noalias %b0, ptr noalias %b1, ptr noalias %b2, ptr noalias %shared, ptr noalias %private, i64 %lo, i64 %hi) {
entry:
%v1 = alloca [8 x float], align 64
store <4 x float> splat (float 0x0000000000000000), ptr %v1, align 4
%v2 = getelementptr i8, ptr %v1, i64 16
store <4 x float> splat (float 0x0000000000000000), ptr %v2, align 4
br label %L3
L3:
%v3 = phi i64 [ 0, %entry ], [ %n3, %L3 ]
%v5 = phi ptr [ %b0, %entry ], [ %v5n, %L3 ]
%v7 = phi ptr [ %b1, %entry ], [ %v7n, %L3 ]
%v4 = load <4 x float>, ptr %v1, align 4
%v6 = load float, ptr %v5, align 4
%v8 = load <4 x float>, ptr %v7, align 4
%v9 = insertelement <4 x float> poison, float %v6, i64 0
%v10 = shufflevector <4 x float> %v9, <4 x float> poison, <4 x i32> zeroinitializer
%v11 = call <4 x float> @llvm.fma.v4f32(<4 x float> %v10, <4 x float> %v8, <4 x float> %v4)
store <4 x float> %v11, ptr %v1, align 4
%v12 = getelementptr i8, ptr %v1, i64 16
%v13 = load <4 x float>, ptr %v12, align 4
%v14 = getelementptr i8, ptr %v5, i64 12
%v15 = load float, ptr %v14, align 4
%v16 = insertelement <4 x float> poison, float %v15, i64 0
%v17 = shufflevector <4 x float> %v16, <4 x float> poison, <4 x i32> zeroinitializer
%v18 = call <4 x float> @llvm.fma.v4f32(<4 x float> %v17, <4 x float> %v8, <4 x float> %v13)
store <4 x float> %v18, ptr %v2, align 4
%n3 = add nuw nsw i64 %v3, 1
%v5n = getelementptr i8, ptr %v5, i64 4
%v7n = getelementptr i8, ptr %v7, i64 16
%t19 = icmp slt i64 %n3, 3
br i1 %t19, label %L3, label %X19
X19:
%v20 = load <4 x float>, ptr %v1, align 4
store <4 x float> %v20, ptr %b2, align 4
%v21 = load <4 x float>, ptr %v2, align 4
%v22 = getelementptr i8, ptr %b2, i64 16
store <4 x float> %v21, ptr %v22, align 4
ret void
}
define void @kernel(ptr %buffers, ptr %params, i64 %threads) {
entry:
%p0 = getelementptr ptr, ptr %buffers, i64 0
%b0 = load ptr, ptr %p0
%p1 = getelementptr ptr, ptr %buffers, i64 1
%b1 = load ptr, ptr %p1
%p2 = getelementptr ptr, ptr %buffers, i64 2
%b2 = load ptr, ptr %p2
%shared = getelementptr i8, ptr %buffers, i64 0
%private = getelementptr i8, ptr %shared, i64 0
call void @kernel.part0(ptr %b0, ptr %b1, ptr %b2, ptr %shared, ptr %private, i64 0, i64 0)
ret void
}
declare <4 x float> @llvm.fma.v4f32(<4 x float>, <4 x float>, <4 x float>)
